"""The scores of a call, in memory that the front and every worker of the call see."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from voxplain_server.workers.memory import create_memory, map_memory

_ALIGNMENT = 64


class ScoreBoard:
    """One float64 and one done flag for each evaluation of each method.

    Workers write scores; only the front sets flags, after a worker has told that a block is whole. So a worker that dies in
    the middle of a block leaves nothing that counts, and merging the work of many is filling in an array.

    Attributes:
        descriptor: the memory file.
        evaluations: by method, in the order of the spec; 0 for gradient methods.
    """

    def __init__(self, descriptor: int, evaluations: Sequence[int]) -> None:
        """Take a board that exists; the descriptor is the board's from now on.

        Raises:
            ValueError: the memory file is too small.
        """
        self.descriptor = descriptor
        self.evaluations = tuple(evaluations)
        self._places, size = _lay_out(self.evaluations)
        self._bytes = map_memory(descriptor, size, writable=True)

    @classmethod
    def create(cls, evaluations: Sequence[int]) -> ScoreBoard:
        """Make a board on which nothing is done."""
        _, size = _lay_out(evaluations)
        return cls(create_memory(size), evaluations)

    def scores(self, method: int) -> npt.NDArray[np.float64]:
        """(evaluations,) of one method; entries that are not done have no meaning."""
        start, _, count = self._places[method]
        return self._bytes[start : start + 8 * count].view(np.float64)

    def done(self, method: int) -> npt.NDArray[np.bool_]:
        """(evaluations,) which of them are there."""
        _, start, count = self._places[method]
        return self._bytes[start : start + count].view(np.bool_)

    def close(self) -> None:
        """Let go of the memory. Arrays taken before keep it mapped until they are gone."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        self._bytes = np.zeros(0, dtype=np.uint8)


def _lay_out(evaluations: Sequence[int]) -> tuple[list[tuple[int, int, int]], int]:
    """(start of scores, start of flags, count) by method, and the size in bytes."""
    places, end = [], 0
    for count in evaluations:
        flags = end + 8 * count
        places.append((end, flags, count))
        end = -(-(flags + count) // _ALIGNMENT) * _ALIGNMENT
    return places, end
