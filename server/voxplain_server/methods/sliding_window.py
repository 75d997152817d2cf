"""The places of a window that slides over a volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxplain_server.features.region import Box


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """All places of a window on one modality, numbered in C order.

    Attributes:
        shape: voxels of the volume along each axis.
        window: edge of the window along each axis, at most the volume's.
        stride: step along each axis, at most the window, so that every voxel is covered.
    """

    shape: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Places along each axis: ceil((n - w) / s) + 1, so that the last one reaches the border, cut by it."""
        return tuple(-(-(n - w) // s) + 1 for n, w, s in zip(self.shape, self.window, self.stride, strict=True))

    @property
    def places(self) -> int:
        """How many places there are."""
        return int(np.prod(self.counts, dtype=object))

    def box(self, place: int) -> Box:
        """The voxels under the window."""
        steps = np.unravel_index(place, self.counts)
        starts = [int(step) * s for step, s in zip(steps, self.stride, strict=True)]
        return tuple(slice(a, min(a + w, n)) for a, w, n in zip(starts, self.window, self.shape, strict=True))

    def sums_over_places(self, voxels: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Sum a voxel array under every place.

        Args:
            voxels: (*shape) whole numbers.

        Returns:
            (places,) exact.
        """
        sums = voxels.astype(np.int64)
        for axis, (n, w, s, count) in enumerate(zip(self.shape, self.window, self.stride, self.counts, strict=True)):
            starts = np.arange(count) * s
            running = np.cumsum(sums, axis=axis)
            running = np.concatenate([np.zeros_like(np.take(running, [0], axis=axis)), running], axis=axis)
            sums = np.take(running, np.minimum(starts + w, n), axis=axis) - np.take(running, starts, axis=axis)
        return sums.reshape(-1)

    def spread_over_voxels(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Give every voxel the sum of the values of the places that cover it.

        Axis by axis, a voxel gathers the few places over it: as fast as an integral image, but without its differences of
        large sums, so zeros stay exactly zero and the order of summation is fixed.

        Args:
            values: (places,).

        Returns:
            (*shape).
        """
        sums = values.reshape(self.counts)
        for axis, (n, w, s, count) in enumerate(zip(self.shape, self.window, self.stride, self.counts, strict=True)):
            voxel = np.arange(n)
            along = tuple(-1 if each == axis else 1 for each in range(len(self.shape)))
            gathered = np.zeros((*sums.shape[:axis], n, *sums.shape[axis + 1 :]), dtype=np.float64)
            for back in range(-(-w // s)):
                place = voxel // s - back
                covers = (place >= 0) & (place < count) & (place * s + w > voxel)
                gathered += np.take(sums, np.clip(place, 0, count - 1), axis=axis) * covers.reshape(along)
            sums = gathered
        return sums

    def coarseness(self) -> npt.NDArray[np.int64]:
        """(places,) How coarse the sparsest lattice is that a place belongs to: its spacing is 2**coarseness places."""
        finest = np.full(self.counts, np.iinfo(np.int64).max)
        for axis, count in enumerate(self.counts):
            along = tuple(-1 if each == axis else 1 for each in range(len(self.counts)))
            finest = np.minimum(finest, _trailing_zeros(count, cap=max(self.counts).bit_length()).reshape(along))
        return finest.reshape(-1)


def _trailing_zeros(count: int, *, cap: int) -> npt.NDArray[np.int64]:
    steps = np.arange(count)
    zeros = np.zeros(count, dtype=np.int64)
    for power in range(1, cap + 1):
        zeros[steps % (1 << power) == 0] = power
    return zeros
