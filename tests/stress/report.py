"""docs/reliability.md: every row as it was really run."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from tests.stress.row import Row

ROOT = Path(__file__).parents[2]
PAGE, KEPT = ROOT / "docs" / "reliability.md", ROOT / "stress.json"

_HEAD = """# Hard to knock over

What `make stress` did to a server, and what the server has shown. The counts are those that were really run. `make test`
holds the counts and the books of most rows at smaller numbers on every commit, without a clock.

The oracle is a ledger in the front: every slot, byte, memory file, place in the queue, worker and task that a call takes is
booked when it is taken and when it is given back. `voxplain_held{resource}` shows it, and after every row each resource must
be at 0. The system's own list of open memory files must agree.

The load that knocks at the server runs on the same processors. *Others* tells which share of them went to processes that had
nothing to do with the row: where it is not near 0, milliseconds are those of a shared machine.
"""


def keep(part: str, rows: Sequence[Row], *, others: float) -> None:
    """Remember what a part has shown, with the host and the day, in the place of what it showed before.

    Args:
        part: its name.
        rows: what it has shown.
        others: share of the processors that others took meanwhile.
    """
    known = _known()
    kept = [asdict(row) for row in rows]
    known[part] = {"host": _host(), "day": date.today().isoformat(), "others": round(others, 3), "rows": kept}
    KEPT.write_text(json.dumps(known, indent=1) + "\n")


def write_page(parts: Sequence[str]) -> None:
    """Write the page from what is kept.

    Args:
        parts: all there are, in the order of the table.
    """
    known = _known()
    lines = [_HEAD, "| what | count | goal | figure | | others |", "|---|---|---|---|---|---|"]
    notes, places, passed, failed = [], set(), 0, 0
    for part in parts:
        if part not in known:
            lines.append(f"| part `{part}` | 0 | | not run yet | | |")
            continue
        places.add(f"{known[part]['host']}, {known[part]['day']}")
        others = known[part].get("others")
        beside = "not measured" if others is None else f"{100 * others:.0f} %"
        for row in (Row(**each) for each in known[part]["rows"]):
            cells = (row.what, row.count, row.goal, row.figure, "passed" if row.passed else "**failed**", beside)
            lines.append("| " + " | ".join(each.replace("|", "/") for each in cells) + " |")
            passed, failed = passed + row.passed, failed + (not row.passed)
            if row.remark:
                notes.append(f"- {row.what}: {row.remark}.")
    where = ["", f"{passed} passed, {failed} failed. Hosts: {'; '.join(sorted(places))}."]
    PAGE.write_text("\n".join([*lines, *where, *([""] if notes else []), *notes]) + "\n")


def _known() -> dict[str, Any]:
    return json.loads(KEPT.read_text()) if KEPT.exists() else {}


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
