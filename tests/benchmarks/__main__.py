"""`make bench`: every figure beside its bound, docs/benchmarks.md and bench.json.

    python -m tests.benchmarks [NAME ...]     # of upload, overhead, rates, memory; default all

Exits with 1 when a bound is missed. A part of the run replaces its figures in the report of the last whole one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console

from tests.benchmarks import memory, overhead, rates, upload
from tests.benchmarks.figure import Figure
from tests.benchmarks.report import read_report, table, write_report

BENCHMARKS: dict[str, Callable[[], Iterator[Figure]]] = {
    "upload": upload.measure,
    "overhead": overhead.measure,
    "rates": rates.measure,
    "memory": memory.measure,
}


def main() -> int:
    """Run the named benchmarks and print one table."""
    names = sys.argv[1:] or list(BENCHMARKS)
    start = time.monotonic()
    figures: list[Figure] = []
    for name in names:
        for figure in BENCHMARKS[name]():
            figures.append(figure)
            sys.stdout.write(f"{figure.name}: {figure.value:.4g} {figure.unit}\n")
            sys.stdout.flush()
    seconds = time.monotonic() - start
    Console().print(table(figures))
    whole = names == list(BENCHMARKS)
    known = {} if whole else read_report()
    if whole or known:
        write_report(list((known | {each.name: each for each in figures}).values()), seconds if whole else None)
    missed = [figure.name for figure in figures if not figure.met]
    sys.stdout.write(f"{len(figures)} figures in {seconds:.0f} s; {len(missed)} bounds missed {', '.join(missed)}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
