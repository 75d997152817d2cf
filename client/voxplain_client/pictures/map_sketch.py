"""What must be known of every map before the first is drawn: its scale, and where its mass lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from voxplain.volume import Geometry

SCALE_PERCENTILE = 99.9
"""Of the absolute non-zero values: single hot voxels do not set the scale."""


@dataclass(frozen=True, slots=True, eq=False)
class MapSketch:
    """A few numbers that stand for a map, so that not all maps must be in memory at once.

    Attributes:
        geometry: its grid.
        modalities: whom it serves.
        scale: the SCALE_PERCENTILE of its absolute non-zero values; 0 for a map that is zero everywhere.
        largest: its largest absolute value.
        profiles: for each axis, the absolute values cut at `scale` and summed over each slice.
        unreached: whether it has voxels that no evaluation has reached.
    """

    geometry: Geometry
    modalities: tuple[str, ...]
    scale: float
    largest: float
    profiles: tuple[npt.NDArray[np.float64], ...]
    unreached: bool


def sketch_map(voxels: npt.NDArray[Any], geometry: Geometry, modalities: Sequence[str]) -> MapSketch:
    """Look at a whole map once. NaN (not evaluated) counts as zero."""
    strength = np.abs(np.nan_to_num(voxels, nan=0.0))
    inside = strength[strength > 0]
    scale = float(np.percentile(inside, SCALE_PERCENTILE)) if inside.size else 0.0
    cut = np.minimum(strength, scale)
    axes = range(voxels.ndim)
    profiles = tuple(cut.sum(axis=tuple(other for other in axes if other != axis), dtype=np.float64) for axis in axes)
    largest = float(inside.max()) if inside.size else 0.0
    return MapSketch(
        geometry=geometry,
        modalities=tuple(modalities),
        scale=scale,
        largest=largest,
        profiles=profiles,
        unreached=bool(np.isnan(voxels).any()),
    )


def fullest_slice(rows: Sequence[Sequence[MapSketch]], axis: int | None, *, length: int) -> int:
    """The slice that holds most mass of attribution; every method has one vote, spread over the slices as its mass is.

    Args:
        rows: for each method its maps on one grid.
        axis: the slice axis; None for a 2D grid.
        length: slices along it.
    """
    if axis is None:
        return 0
    votes = np.zeros(length)
    for sketches in rows:
        scale = max((sketch.scale for sketch in sketches), default=0.0)
        profile = np.zeros(length)
        for sketch in sketches:
            profile += sketch.profiles[axis] / scale if scale > 0 else 0.0
        votes += profile / profile.sum() if profile.sum() > 0 else 0.0
    return int(np.argmax(votes)) if votes.any() else length // 2
