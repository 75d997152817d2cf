"""How the voxels of one grid lie on another whose axes are parallel to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_ALMOST = 1e-6
"""Coordinates this close to a voxel's centre, in voxels, are taken to be on it."""


@dataclass(frozen=True, slots=True)
class AxisMap:
    """Voxel j of one axis lies at `step * j + start` of another, in voxels.

    Attributes:
        step: -1 for a flip, 1 for a crop or a pad, anything else for a resampling.
        start: where voxel 0 lies.
        source_size: voxels of the axis that is read.
        size: voxels of the axis that is written.
    """

    step: float
    start: float
    source_size: int
    size: int

    @property
    def exact(self) -> bool:
        """Whether every voxel lies on a voxel: nothing is interpolated."""
        return abs(self.step) == 1.0 and self.start == round(self.start)

    @property
    def cuts(self) -> bool:
        """Whether voxels of the axis that is read are left out: more than half of one, which resampling may lose, at an end."""
        ends = self.start, self.step * (self.size - 1) + self.start
        reach = abs(self.step) / 2
        return min(ends) - reach > 0.0 or max(ends) + reach < self.source_size - 1.0

    def inverse(self) -> AxisMap:
        """The way back."""
        return AxisMap(1.0 / self.step, -self.start / self.step, self.size, self.source_size)

    def overlap(self) -> tuple[slice, slice]:
        """For an exact map: which voxels are read, and where they are written; both in the order of writing."""
        start, last = round(self.start), self.source_size - 1
        if self.step > 0:
            first, stop = max(0, -start), min(self.size, last + 1 - start)
            read = slice(first + start, stop + start)
        else:
            first, stop = max(0, start - last), min(self.size, start + 1)
            read = slice(start - first, start - stop if start >= stop else None, -1)
        return (read, slice(first, stop)) if first < stop else (slice(0, 0), slice(0, 0))


def lay_over(
    array: npt.NDArray[np.generic], maps: Sequence[AxisMap], *, nearest: bool, dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    """Read an array through one map for each of its axes.

    Voxels whose centre lies outside the array are zero; those inside, up to half a voxel beyond the outermost centres, take
    the linear interpolation of their neighbours, or the nearest one. Where all maps are exact, values are only moved.

    Args:
        array: (source_size of each map).
        maps: for each axis.
        nearest: True: nearest neighbour, for labels and for maps that are constant on features.
        dtype: of the result.

    Returns:
        A new C-contiguous array (size of each map).
    """
    slices = [axis_map.overlap() if axis_map.exact else (slice(None), slice(None)) for axis_map in maps]
    moved: npt.NDArray[Any] = array[tuple(read for read, _ in slices)]
    for axis, axis_map in enumerate(maps):
        if not axis_map.exact:
            moved = _interpolated(moved, axis, axis_map, nearest=nearest)
    shape = tuple(axis_map.size for axis_map in maps)
    if moved.shape == shape:
        return np.array(moved, dtype=dtype, order="C", copy=True)
    result = np.zeros(shape, dtype=dtype)
    result[tuple(write for _, write in slices)] = moved
    return result


def _interpolated(array: npt.NDArray[Any], axis: int, axis_map: AxisMap, *, nearest: bool) -> npt.NDArray[Any]:
    last = axis_map.source_size - 1
    places = axis_map.step * np.arange(axis_map.size) + axis_map.start
    outside = (places < -0.5 - _ALMOST) | (places > last + 0.5 + _ALMOST)
    places = np.clip(places, 0.0, last)
    closest = np.floor(places + 0.5).astype(np.intp)
    if nearest:
        result: npt.NDArray[Any] = np.take(array, closest, axis=axis)
    else:
        below = np.floor(places).astype(np.intp)
        # A voxel on a centre reads that voxel alone, or a NaN beside it would spread.
        on_centre = np.abs(places - closest) <= _ALMOST
        low, high = np.where(on_centre, closest, below), np.where(on_centre, closest, np.minimum(below + 1, last))
        kind = array.dtype if np.issubdtype(array.dtype, np.floating) else np.dtype(np.float32)
        weight = np.where(on_centre, 0.0, places - below).astype(kind)
        weight = weight.reshape([-1 if other == axis else 1 for other in range(array.ndim)])
        result = np.take(array, low, axis=axis).astype(kind, copy=False)
        result *= 1 - weight
        upper = np.take(array, high, axis=axis).astype(kind, copy=False)
        upper *= weight
        result += upper
    result[(slice(None),) * axis + (outside,)] = 0
    return result
