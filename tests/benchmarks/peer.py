"""Runs the Captum peer in fresh processes, with the default and with the tuned allocator, and reads what it printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
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
        maps: (modalities, *spatial) by name.
        seconds: of single methods of a family.
    """

    fixed: float
    each: float
    maps: dict[str, npt.NDArray[np.float32]]
    seconds: dict[str, float]

    def total(self, evaluations: int, *, repeats: int = 1) -> float:
        """Seconds of a call of `repeats` parts with so many evaluations each."""
        return repeats * (self.fixed + evaluations * self.each)


def run_captum(family: str, edge: int, *, subject: str = "vgg-like", allocator: str = "default") -> PeerRun:
    """Time one family; see captum_peer."""
    tuned = ALLOCATORS["tuned"]
    environ = {name: value for name, value in os.environ.items() if name not in tuned} | ALLOCATORS[allocator]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "maps.npz"
        command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.captum_peer", family, str(out), subject, str(edge)]
        told = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_SECONDS)
        found = json.loads(told.stdout.splitlines()[-1])
        with np.load(out) as held:
            maps = {name: held[name] for name in held.files}
    return PeerRun(fixed=found["fixed"], each=found["each"], maps=maps, seconds=found.get("seconds", {}))


def run_both(family: str, edge: int, subject: str) -> dict[str, PeerRun]:
    """One family with each allocator, by the allocator's name."""
    return {allocator: run_captum(family, edge, subject=subject, allocator=allocator) for allocator in ALLOCATORS}


def difference(ours: npt.NDArray[np.floating], theirs: npt.NDArray[np.floating], floor: float = 0.0) -> float:
    """max|a - b| / max|b|, differences below `floor` counting as none."""
    gap = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max()
    return float(max(gap - floor, 0.0) / np.abs(theirs).max())
