"""`make bench`: every figure beside its bound, docs/benchmarks.md and bench.json.

    python -m tests.benchmarks [NAME ...]     # of PARTS below; default: all

Every part runs in a process of its own, so that one that fails, hangs or is killed takes no other's figures along; the report
is written after each. A part that is run by itself replaces its figures in the report of the last whole run. Exits with 1 when
a bound is missed or a part fails.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from tests.benchmarks.figure import Figure
from tests.benchmarks.part import PARTS, run_part
from tests.benchmarks.report import read_report, table, write_report


def main() -> int:
    """Run the named parts and print one table."""
    names = sys.argv[1:] or list(PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        sys.stdout.write(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}\n")
        return 2
    with tempfile.TemporaryDirectory() as cache:
        return run(names, Path(cache))


def run(names: list[str], cache: Path) -> int:
    """Run these parts, the servers of which share a cache."""
    start = time.monotonic()
    whole = names == list(PARTS)
    known: dict[str, Figure] = {} if whole else read_report()
    figures: dict[str, Figure] = {}
    failed: list[str] = []
    for name in names:
        began = time.monotonic()
        sys.stdout.write(f"== {name}\n")
        for each in run_part(name, cache=cache):
            if isinstance(each, str):
                failed.append(f"{name} ({each})")
                sys.stdout.write(f"{name} failed: {each}\n")
                continue
            figures[each.name] = each
            sys.stdout.write(f"{each.name}: {each.value:.4g} {each.unit}  {each.detail}\n")
            sys.stdout.flush()
        known |= figures
        seconds = time.monotonic() - start
        write_report(list(known.values()), seconds if whole else None, failed)
        sys.stdout.write(f"== {name}: {time.monotonic() - began:.0f} s\n")
    Console(width=160).print(table(list(figures.values())))
    missed = [figure.name for figure in figures.values() if not figure.met]
    sys.stdout.write(f"{len(figures)} figures in {time.monotonic() - start:.0f} s; {len(missed)} bounds missed\n")
    sys.stdout.write("".join(f"  missed: {name}\n" for name in missed) + "".join(f"  failed: {name}\n" for name in failed))
    return 1 if missed or failed else 0


if __name__ == "__main__":
    sys.exit(main())
