"""`make neighbours`: clients and servers of other projects, unchanged, against real voxplain servers.

    python -m tests.neighbours [--neighbour NAME ...]

Exits with 1 when a check fails. Its last line is `N passed, N failed`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.neighbours.environment import EnvironmentNotMade
from tests.neighbours.grpcurl import GRPCURL
from tests.neighbours.neighbour import Neighbour, Outcome
from tests.neighbours.proxies import PROXIES_IN_BETWEEN
from tests.neighbours.served_elsewhere import EXPLAINED_ELSEWHERE
from tests.neighbours.triton import TRITON

NEIGHBOURS: tuple[Neighbour, ...] = (TRITON, GRPCURL, PROXIES_IN_BETWEEN, *EXPLAINED_ELSEWHERE)


def main() -> int:
    """Visit every neighbour, tell what came of each check as it is done, and add up."""
    parser = argparse.ArgumentParser(prog="python -m tests.neighbours", description="Try voxplain beside other projects.")
    parser.add_argument("--neighbour", action="append", choices=[each.name for each in NEIGHBOURS], help="only this one")
    asked = parser.parse_args()
    outcomes = [
        outcome for each in NEIGHBOURS if not asked.neighbour or each.name in asked.neighbour for outcome in visit(each)
    ]
    failed = sum(bool(outcome.fault) for outcome in outcomes)
    sys.stdout.write(f"{len(outcomes) - failed} passed, {failed} failed\n")
    return 1 if failed or not outcomes else 0


def visit(neighbour: Neighbour) -> list[Outcome]:
    """Run the checks of one neighbour; what breaks it off is a failed check too."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for outcome in neighbour.checks(Path(scratch)):
                _tell(neighbour, outcome)
                outcomes.append(outcome)
        except EnvironmentNotMade as fault:
            outcomes.append(Outcome("its environment can be made", str(fault)))
            _tell(neighbour, outcomes[-1])
        except Exception as fault:
            outcomes.append(Outcome("its checks run to their end", f"{type(fault).__name__}: {fault}"))
            _tell(neighbour, outcomes[-1])
    return outcomes


def _tell(neighbour: Neighbour, outcome: Outcome) -> None:
    sys.stdout.write(f"{neighbour.name}: {outcome.title}: {outcome.fault or 'passed'}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
