"""`make stress`: everything that could knock the server over, with goal beside figure; writes docs/reliability.md.

Bounded in count and time; dials loopback only. `--only NAME` runs one part and leaves the rows of the others on the page as
they were; `--share 0.1` does a tenth.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bundles import TinyBundle
from tests.serving import RunningServer
from tests.stress import bad_input, crowd, floods, hostile, leaving, losses, planted, reloads, slope, suites
from tests.stress.caller import warm_up
from tests.stress.delaying import leave_at_points
from tests.stress.models import tiny_bundle
from tests.stress.neighbours import Neighbours
from tests.stress.report import keep, print_rows, write_page
from tests.stress.row import Row, Scale

STALL_SECONDS = 15.0
Part = Callable[[Scale], list[Row]]


def main(argv: Sequence[str]) -> int:
    """Run the rows. Returns 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--only", action="append", default=[], choices=[*PARTS], help="run this part; may be given again")
    parser.add_argument("--share", type=float, default=1.0, help="share of the full counts")
    given = parser.parse_args(argv)
    scale, rows = Scale(given.share), []
    began = time.monotonic()
    for name in given.only or [*PARTS]:
        neighbours = Neighbours()
        try:
            made = PARTS[name](scale)
        except Exception as error:
            # A part that breaks is a row that failed; the others still tell what they find.
            text = str(error).splitlines()[0][:200] if str(error) else ""
            made = [Row(name, "0", "runs to its end", f"{type(error).__name__}: {text}", False)]
        print_rows(made)
        rows.extend(made)
        keep(name, made, others=neighbours.share())
        write_page([*PARTS])
    passed = sum(row.passed for row in rows)
    print(f"{time.monotonic() - began:.0f} s")
    print(f"{passed} passed, {len(rows) - passed} failed")
    return int(passed < len(rows))


def _with_server(run: Callable[[RunningServer, TinyBundle, Scale], list[Row]], *arguments: str) -> Part:
    def part(scale: Scale) -> list[Row]:
        with tempfile.TemporaryDirectory() as folder:
            models = Path(folder)
            bundle = tiny_bundle(models)
            limits = ("--engine", "onnxruntime", "--threads-per-worker", "1", "--reload-seconds", "0", *arguments)
            with RunningServer(models, limits) as server:
                warm_up(server, bundle)
                return run(server, bundle, scale)

    return part


PARTS: dict[str, Part] = {
    "assembler": bad_input.spoil_uploads,
    "malformed": _with_server(lambda server, bundle, scale: bad_input.send_rpcs(server, bundle, scale)),
    "floods": _with_server(lambda server, bundle, scale: floods.flood(server, scale)),
    "cancel": _with_server(lambda server, bundle, scale: leaving.cancel_at_random(server, bundle, scale)),
    "points": leave_at_points,
    "clients": _with_server(
        lambda server, bundle, scale: [
            *leaving.kill_clients(server, bundle, scale),
            *leaving.never_read(server, bundle, stall_s=STALL_SECONDS),
        ],
        *("--send-stall-seconds", str(STALL_SECONDS)),
    ),
    "silent": _with_server(lambda server, bundle, scale: leaving.silence_clients(server, bundle)),
    "deadlines": _with_server(lambda server, bundle, scale: leaving.pass_deadlines(server, bundle, scale)),
    "workers": losses.lose_workers,
    "front": losses.lose_front,
    "drain": losses.drain,
    "hostile": lambda scale: [*suites.hostile_models(scale), *hostile.hostile_files(scale)],
    "reload": reloads.reload_under_load,
    "secrets": planted.plant,
    "access": suites.access,
    "slope": slope.repeat,
    "crowd": crowd.crowd,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
