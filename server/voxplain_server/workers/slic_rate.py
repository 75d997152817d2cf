"""What making supervoxels takes on this host."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from voxplain_server.features.supervoxels import slic_labels
from voxplain_server.workers.probe_timing import timed

SLIC_EDGE = 24
"""Voxels along each axis of the volume on which making supervoxels is timed."""


@cache
def slic_rate() -> float:
    """Seconds that making supervoxels takes on this host for each voxel; it does not depend on the model."""
    volume = np.random.default_rng(0).standard_normal((SLIC_EDGE,) * 3).astype(np.float32)

    def run() -> npt.NDArray[np.float64]:
        slic_labels(volume, segments=50, compactness=0.1, sigma_voxels=2.0)
        return np.zeros(0)

    run()
    return timed(run, budget=0.2)[1] / volume.size
