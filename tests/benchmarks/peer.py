"""Runs the Captum peer in fresh processes, with the default and with the tuned allocator, and reads what it printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

ALLOCATORS: dict[str, dict[str, str]] = {
    "default": {},
    "tuned": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "268435456"},
}
"""glibc's settings by name."""
TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True, slots=True, eq=False)
class PeerRun:
    """What Captum took and gave.

    Attributes:
        fixed: seconds once for a call, or for each permutation of a walk.
        each: seconds of an evaluation.
        maps: (modalities, *spatial) by name, of all families of its process.
        seconds: of single methods of a family.
    """

    fixed: float
    each: float
    maps: dict[str, npt.NDArray[np.float32]]
    seconds: dict[str, float]

    def total(self, evaluations: int, *, repeats: int = 1) -> float:
        """Seconds of a call of `repeats` parts with so many evaluations each."""
        return repeats * (self.fixed + evaluations * self.each)


def run_captum(families: Sequence[str], edge: int, *, subject: str, allocator: str) -> dict[str, PeerRun]:
    """Time families in one fresh process; see captum_peer. Those that Captum cannot do are not in the answer.

    Where a family ends the process, by an error or for want of memory, those after it get another one.
    """
    tuned = ALLOCATORS["tuned"]
    environ = {name: value for name, value in os.environ.items() if name not in tuned} | ALLOCATORS[allocator]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "maps.npz"
        asked = ("tests.benchmarks.captum_peer", ",".join(families), str(out), subject, str(edge))
        command = [sys.executable, "-W", "ignore", "-m", *asked]
        most = TIMEOUT_SECONDS * len(families)
        told = subprocess.run(command, env=environ, check=False, stdout=subprocess.PIPE, text=True, timeout=most)
        maps: dict[str, npt.NDArray[np.float32]] = {}
        if out.exists():
            with np.load(out) as held:
                maps = {name: held[name] for name in held.files}
    lines = [json.loads(line) for line in told.stdout.splitlines() if line.startswith("{")]
    found = {
        family: PeerRun(fixed=each["fixed"], each=each["each"], maps=maps, seconds=each.get("seconds", {}))
        for family, each in zip(families, lines, strict=False)
    }
    left = families[len(found) + 1 :]
    return found | (run_captum(left, edge, subject=subject, allocator=allocator) if left else {})


def run_families(families: Sequence[str], edge: int, subject: str) -> dict[str, dict[str, PeerRun]]:
    """What Captum can do of some families with each allocator: by the family's name, then by the allocator's."""
    found = {allocator: run_captum(families, edge, subject=subject, allocator=allocator) for allocator in ALLOCATORS}
    done = [family for family in families if all(family in each for each in found.values())]
    return {family: {allocator: each[family] for allocator, each in found.items()} for family in done}


def run_both(family: str, edge: int, subject: str) -> dict[str, PeerRun]:
    """One family with each allocator, by the allocator's name."""
    return run_families((family,), edge, subject)[family]


def difference(ours: npt.NDArray[np.floating], theirs: npt.NDArray[np.floating], floor: float = 0.0) -> float:
    """max|a - b| / max|b|, differences below `floor` counting as none."""
    gap = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max()
    return float(max(gap - floor, 0.0) / np.abs(theirs).max())
