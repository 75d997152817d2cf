"""What making supervoxels takes on this host."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import numpy.typing as npt

from voxplain_server.features.supervoxels import slic_labels
from voxplain_server.workers.expected_time import NONZERO, SLIC_PROBE_EDGE
from voxplain_server.workers.probe_timing import timed


@cache
def slic_rate(threads: int) -> float:
    """Seconds that making supervoxels takes on this host for each voxel that is not zero; it does not depend on the model.

    Args:
        threads: of a worker: so many volumes are cut side by side, as those of a case are.
    """
    volume = np.random.default_rng(0).standard_normal((SLIC_PROBE_EDGE,) * 3).astype(np.float32)
    # A ball: finding where supervoxels begin costs something only where there is a background.
    axes = np.meshgrid(*[np.linspace(-0.5, 0.5, SLIC_PROBE_EDGE)] * 3, indexing="ij")
    volume[sum(axis**2 for axis in axes) > (0.75 * NONZERO / np.pi) ** (2 / 3)] = 0

    def run() -> npt.NDArray[np.float64]:
        with ThreadPoolExecutor(threads) as side_by_side:
            list(
                side_by_side.map(lambda _: slic_labels(volume, segments=50, compactness=0.1, sigma_voxels=2.0), range(threads))
            )
        return np.zeros(0)

    run()
    return timed(run, budget=0.2)[1] / int(np.count_nonzero(volume))
