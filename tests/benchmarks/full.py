"""`make bench-full`: the same rows for other networks, and how they grow with the volume. Hours; it goes on where it stopped.

    python -m tests.benchmarks.full [SUBJECT/EDGE/PART ...]     # those that are named, again; default: all that are missing

What is measured is kept in bench-full.json, and docs/benchmarks-full.md is written anew after every part.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.part import run_part
from tests.benchmarks.report import ROOT, describe_host
from tests.benchmarks.subjects import SUBJECTS

ROWS = ("occlusion", "ablation", "shapley", "permutation", "regression", "single-pass", "many-passes")
GROWING = ("occlusion", "ablation")
EDGES = (64, 96, 128, 160)
HEADLINE = "vgg-like"
WORK: tuple[str, ...] = (
    *(f"{HEADLINE}/{edge}/{part}" for edge in EDGES for part in GROWING),
    *(f"{name}/128/{part}" for part in ROWS for name in SUBJECTS if name != HEADLINE),
)
MOST_SECONDS = 3600.0
HELD = ROOT / "bench-full.json"
Found = dict[str, Any]


def main() -> int:
    """Measure what is missing, or what is named."""
    unknown = [each for each in sys.argv[1:] if each not in WORK]
    if unknown:
        sys.stdout.write(f"no {', '.join(unknown)}; there are {', '.join(WORK)}\n")
        return 2
    held: dict[str, Found] = json.loads(HELD.read_text()) if HELD.exists() else {}
    asked = sys.argv[1:] or [key for key in WORK if key not in held]
    with tempfile.TemporaryDirectory() as cache:
        take(asked, held, Path(cache))
    failed = [key for key in asked if held[key]["failed"]]
    sys.stdout.write("".join(f"  failed: {key}: {held[key]['failed']}\n" for key in failed))
    return 1 if failed else 0


def take(asked: Sequence[str], held: dict[str, Found], cache: Path) -> None:
    """Measure these into what is held, and write it down after each."""
    for number, key in enumerate(asked, start=1):
        sys.stdout.write(f"== {number} of {len(asked)}: {key}\n")
        held[key] = measure(key, cache)
        HELD.write_text(json.dumps({each: held[each] for each in WORK if each in held}, indent=1) + "\n")
        (ROOT / "docs" / "benchmarks-full.md").write_text(page(held))


def measure(key: str, cache: Path) -> Found:
    """One part of one network and volume; `cache` as run_part takes it."""
    name, edge, part = key.split("/")
    began = time.monotonic()
    found: Found = {"figures": [], "failed": ""}
    for each in run_part(part, name, edge, cache=cache, most_seconds=MOST_SECONDS):
        if isinstance(each, str):
            found["failed"] = each
            continue
        found["figures"].append(dataclasses.asdict(each))
        sys.stdout.write(f"{each.name}: {each.value:.4g} {each.unit}  {each.detail}\n")
        sys.stdout.flush()
    found["seconds"] = round(time.monotonic() - began)
    return found


def page(held: Mapping[str, Found]) -> str:
    """docs/benchmarks-full.md."""
    networks = [name for name in SUBJECTS if name != HEADLINE]
    other = table(held, {name: [f"{name}/128/{part}" for part in ROWS] for name in networks})
    growth = table(held, {f"{edge}^3": [f"{HEADLINE}/{edge}/{part}" for part in GROWING] for edge in EDGES})
    notes = [
        f"- `{key}`: {each['name']}, {each['value']:.3g} {each['unit']}. {each['detail']}"
        for key, found in held.items()
        for each in found["figures"]
        if not each["name"].startswith(("limit/", "captum/"))
    ]
    failed = [f"- `{key}` failed: {found['failed']}" for key, found in held.items() if found["failed"]]
    missing = [f"- `{key}` is not measured yet" for key in WORK if key not in held]
    return PAGE.format(host=describe_host(), other=other, growth=growth, notes="\n".join([*failed, *missing, *notes]))


def table(held: Mapping[str, Found], columns: Mapping[str, list[str]]) -> str:
    """Rows of the headline's table, one column for each network or volume: default allocator / tuned one."""
    cells: dict[str, dict[str, dict[str, float]]] = {}
    for column, keys in columns.items():
        for each in (figure for key in keys if key in held for figure in held[key]["figures"]):
            group, _, rest = each["name"].partition("/")
            row, _, allocator = rest.partition("/vs_captum_")
            if group == "limit":
                cells.setdefault(row, {}).setdefault(column, {})[allocator] = each["value"]
    lines = [f"| row | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for row, by_column in cells.items():
        told = [
            " / ".join(
                f"{by_column[column][allocator]:.3g}" for allocator in ("default", "tuned") if allocator in by_column[column]
            )
            if column in by_column
            else ""
            for column in columns
        ]
        lines.append(f"| {row} | {' | '.join(told)} |")
    return "\n".join(lines)


PAGE = """# Benchmarks of other networks and volumes

Made by `make bench-full`, which goes on where it stopped; for programs in `bench-full.json`. As in
[benchmarks.md](benchmarks.md): how many times faster than Captum in fresh processes, with glibc's default allocator / with the
tuned one. Networks are as wide as they are used (`tests/benchmarks/subjects.py`), weights are random. Ratios near 1 are there
because whole passes are all that can be done: what a window changes reaches everything. Random weights amplify the kinks of
ReLU, so parity in float32 is printed here and not required. Of the other networks we measure less of a method than of the
headline's: four runs of at most 96 windows at random, one permutation, 16 samples; each line below says how much. Parts are
measured one at a time, on different days: `seconds` in `bench-full.json` says how long each took.

Host: {host}

## 4 x 128^3

{other}

## How the ratios grow with the volume, VGG-like network

{growth}

## What failed, what is missing, parity and other figures

{notes}
"""


if __name__ == "__main__":
    sys.exit(main())
