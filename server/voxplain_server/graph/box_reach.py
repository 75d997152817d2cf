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

    @property
    def spreads(self) -> bool:
        """Whether any axis is enlarged: then equal boxes of the result may need boxes of different edges."""
        return bool(self._spreads.any())

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

    def needed(self, boxes: Boxes) -> Boxes:
        """What of the operand `boxes` of the result depend on; it may reach beyond the operand, into a border."""
        start, stop = self._all(self.shape, len(boxes.start))
        lower, upper = boxes.start[:, self._following], boxes.stop[:, self._following]
        read = lower * self._step - self._begin, (upper - 1) * self._step - self._begin + self._window
        limit = self.shape[self._source]
        writer = np.clip(-((self._window - 1 - self._begin - lower) // self._step), 0, limit - 1)
        behind = np.clip((upper - 1 + self._begin) // self._step + 1, writer + 1, limit)
        start[:, self._source] = np.where(self._spreads, writer, read[0])
        stop[:, self._source] = np.where(self._spreads, behind, read[1])
        return Boxes(start, stop)

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
