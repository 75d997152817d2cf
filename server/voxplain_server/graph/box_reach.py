"""How boxes travel through an operator, and back: what a box of the result needs. Many boxes at once.

Luo et al., "Understanding the effective receptive field in deep convolutional neural networks", NeurIPS 2016, has the same
arithmetic for single voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from voxplain_server.graph.axis_reach import AxisReach, Slide, Spread

Corners = npt.NDArray[np.int64]
"""(boxes, axes)."""


class Boxes(NamedTuple):
    """Many boxes of one value: start .. stop-1 along each axis. Empty where stop <= start along any axis."""

    start: Corners
    stop: Corners

    @property
    def size(self) -> Corners:
        """Edges, (boxes, axes)."""
        return self.stop - self.start

    @property
    def filled(self) -> npt.NDArray[np.bool_]:
        """(boxes,) whether there is anything in it."""
        return np.asarray((self.stop > self.start).all(axis=1), dtype=np.bool_)


class BoxReach:
    """One operand of one operator.

    Args:
        axes: for each axis of the result, how it follows the operand.
        shape: of the operand.
        made: shape of the result.
    """

    def __init__(self, axes: Sequence[AxisReach], shape: Sequence[int], made: Sequence[int]) -> None:
        self.shape, self.made = np.array(shape, np.int64), np.array(made, np.int64)
        following = [place for place, axis in enumerate(axes) if isinstance(axis, (Slide, Spread))]
        followed = [axis for axis in axes if isinstance(axis, (Slide, Spread))]
        self._following = np.array(following, np.intp)
        self._source = np.array([axis.source for axis in followed], np.intp)
        self._window = np.array([axis.window for axis in followed], np.int64)
        self._step = np.array([axis.step for axis in followed], np.int64)
        self._begin = np.array([axis.begin for axis in followed], np.int64)
        self._spreads = np.array([isinstance(axis, Spread) for axis in followed], np.bool_)
        self.spreads = bool(self._spreads.any())
        """Whether any axis is enlarged: then equal boxes of the result may need boxes of different edges."""
        # The same for each axis of the operand: the axis of the result that reads it, and how.
        self._reader = np.zeros(self.shape.size, np.intp)
        self._factor, self._offset, self._reach = (np.zeros(self.shape.size, np.int64) for _ in range(3))
        self._whole = np.ones(self.shape.size, np.bool_)
        self._reader[self._source], self._factor[self._source] = self._following, self._step
        self._offset[self._source], self._reach[self._source] = self._begin, self._window
        self._whole[self._source] = False

    def dirty(self, boxes: Boxes) -> Boxes:
        """What of the result depends on `boxes` of the operand; a box that nothing reads gives an empty one."""
        start, stop = self._all(self.made, len(boxes.start))
        lower, upper = boxes.start[:, self._source], boxes.stop[:, self._source]
        reading = -((self._window - 1 - self._begin - lower) // self._step), (upper - 1 + self._begin) // self._step + 1
        writing = lower * self._step - self._begin, (upper - 1) * self._step - self._begin + self._window
        limit = self.made[self._following]
        start[:, self._following] = np.clip(np.where(self._spreads, writing[0], reading[0]), 0, limit)
        stop[:, self._following] = np.clip(np.where(self._spreads, writing[1], reading[1]), 0, limit)
        return Boxes(start, stop)

    def needed(self, start: Corners, size: Corners) -> tuple[Corners, Corners]:
        """What of the operand boxes of equal edges depend on, in boxes of equal edges; they may reach into a border.

        Args:
            start: (boxes, axes) of the result.
            size: (axes,) of the result.

        Returns:
            Start (boxes, axes) and size (axes,) in the operand.
        """
        if not self.spreads:
            first = start[:, self._reader] * self._factor - self._offset
            return first, np.where(self._whole, self.shape, (size[self._reader] - 1) * self._factor + self._reach)
        lower, upper = start[:, self._following], start[:, self._following] + size[self._following]
        limit = self.shape[self._source]
        # Between two writers there may be elements that none writes to: the crop begins at the one before.
        writer = np.minimum(-((self._window - 1 - self._begin - lower) // self._step), (lower + self._begin) // self._step)
        writer = np.clip(writer, 0, limit - 1)
        behind = np.clip((upper - 1 + self._begin) // self._step + 1, writer + 1, limit)
        first, edges = np.zeros((len(start), self.shape.size), np.int64), self.shape.copy()
        first[:, self._source] = np.where(self._spreads, writer, lower * self._step - self._begin)
        read = (size[self._following] - 1) * self._step + self._window
        edges[self._source] = np.where(self._spreads, (behind - writer).max(axis=0), read)
        # Boxes that grew to the common edges move back into the operand: what spreads has no border.
        inside = np.minimum(first, np.maximum(self.shape - edges, 0))
        moves = np.isin(np.arange(self.shape.size), self._source[self._spreads])
        return np.where(moves, inside, first), edges

    @staticmethod
    def _all(shape: Corners, count: int) -> tuple[Corners, Corners]:
        stop = np.repeat(shape[None], count, axis=0)
        return np.zeros_like(stop), stop


def smallest_common(boxes: Boxes, other: Boxes) -> Boxes:
    """The smallest boxes that hold both; where one is empty, the other."""
    here, there = boxes.filled[:, None], other.filled[:, None]
    start = np.where(here & there, np.minimum(boxes.start, other.start), np.where(here, boxes.start, other.start))
    stop = np.where(here & there, np.maximum(boxes.stop, other.stop), np.where(here, boxes.stop, other.stop))
    return Boxes(start, stop)
