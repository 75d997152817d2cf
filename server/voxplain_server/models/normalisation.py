"""Brings volumes to the units that the network was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a volume is normalised by.

    Attributes:
        mean, std: over the non-zero voxels, in float64; 0 and 1 where nothing is normalised.
        caution: why they mean little: EMPTY_VOLUME (no voxel but zero) or CONSTANT_VOLUME; empty otherwise.
    """

    mean: float = 0.0
    std: float = 1.0
    caution: str = ""


def measure(volume: npt.NDArray[np.float32], normalisation: str) -> Statistics:
    """Measure a volume on the model's grid.

    "nonzero-zscore" takes the mean and the population standard deviation of the non-zero voxels, as MONAI's
    NormalizeIntensity(nonzero=True) does. A constant volume keeps a standard deviation of 1.

    Args:
        volume: (*spatial).
        normalisation: "none" or "nonzero-zscore".
    """
    if normalisation == "none":
        return Statistics()
    count, total = 0, 0.0
    for slab in volume:
        count += int(np.count_nonzero(slab))
        total += float(slab.sum(dtype=np.float64))
    if count == 0:
        return Statistics(caution="EMPTY_VOLUME")
    mean = total / count
    # A second pass: the difference of two large sums would lose the digits that matter.
    squares = sum(float(np.square(slab[slab != 0].astype(np.float64) - mean).sum()) for slab in volume)
    std = float(np.sqrt(squares / count))
    if std <= 1e-7 * abs(mean):
        return Statistics(mean=mean, caution="CONSTANT_VOLUME")
    return Statistics(mean=mean, std=std)


def normalise(volume: npt.NDArray[np.float32], statistics: Statistics) -> None:
    """Normalise in place: non-zero voxels become (voxel - mean) / std, zero voxels stay zero.

    Args:
        volume: (*spatial), writeable.
        statistics: of the case's own volume; a baseline takes those of the case.
    """
    if statistics.mean == 0.0 and statistics.std == 1.0:
        return
    for slab in volume:
        inside = slab != 0
        slab[inside] = (slab[inside].astype(np.float64) - statistics.mean) / statistics.std
