"""Runs the Captum peer in a fresh process with the default allocator, and reads what it printed."""

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

ALLOCATOR_VARIABLES = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")


@dataclass(frozen=True, slots=True, eq=False)
class PeerRun:
    """What Captum took and gave: (modalities, *spatial) maps by name."""

    seconds: float
    evaluations: int
    maps: dict[str, npt.NDArray[np.float32]]


def run_captum(family: str, edge: int) -> PeerRun:
    """Time one family; see captum_peer."""
    environ = {name: value for name, value in os.environ.items() if name not in ALLOCATOR_VARIABLES}
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "maps.npz"
        command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.captum_peer", family, str(out), str(edge)]
        told = subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout
        figures = json.loads(told.splitlines()[-1])
        with np.load(out) as held:
            maps = {name: held[name] for name in held.files}
    return PeerRun(seconds=figures["seconds"], evaluations=figures["evaluations"], maps=maps)


def difference(ours: npt.NDArray[np.floating], theirs: npt.NDArray[np.floating], floor: float = 0.0) -> float:
    """max|a - b| / max|b|, differences below `floor` counting as none."""
    gap = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max()
    return float(max(gap - floor, 0.0) / np.abs(theirs).max())
