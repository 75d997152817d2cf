"""docs/reliability.md: every row as it was really run."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from tests.stress.row import Row

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

_HEAD = """# Hard to knock over

What `make stress` did to a server, and what the server has shown. The counts are those that were really run. `make test`
holds the counts and the books of most rows at smaller numbers on every commit, without a clock.

The oracle is a ledger in the front: every slot, byte, memory file, place in the queue, worker and task that a call takes is
booked when it is taken and when it is given back. `voxplain_held{resource}` shows it, and after every row each resource must
be at 0. The system's own list of open memory files must agree.
"""


def write_page(rows: Sequence[Row], *, remarks: Sequence[str] = ()) -> None:
    """Write the page.

    Args:
        rows: in the order of the table.
        remarks: what the reader must know about this run.
    """
    lines = [_HEAD, *remarks, "", f"Host: {_host()}.", "", "| what | count | goal | figure | |", "|---|---|---|---|---|"]
    for row in rows:
        verdict = "passed" if row.passed else "**failed**"
        lines.append(
            "| " + " | ".join(each.replace("|", "/") for each in (row.what, row.count, row.goal, row.figure, verdict)) + " |"
        )
    notes = [f"- {row.what}: {row.remark}." for row in rows if row.remark]
    if notes:
        lines += ["", *notes]
    PAGE.write_text("\n".join(lines) + "\n")


def print_rows(rows: Sequence[Row]) -> None:
    """Goal beside figure, on standard output."""
    for row in rows:
        print(f"{'passed' if row.passed else 'FAILED'}  {row.what} ({row.count})", flush=True)
        print(f"        goal   {row.goal}\n        figure {row.figure}", flush=True)


def _host() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as lines:
        named = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{len(os.sched_getaffinity(0))} cores of {named}, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"
