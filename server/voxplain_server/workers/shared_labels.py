"""Supervoxels of a call in memory that all its workers see: one makes them, and the others read them.

The front makes the memory file, empty, and never looks into it. The lead writes labels behind an index, the index last: what a
lost lead left unfinished is not there, and its successor makes it anew.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Hashable, Mapping

import numpy as np

from voxplain_server.features.feature_set import Labels
from voxplain_server.workers.memory import map_memory

_INDEX_BYTES = 1 << 16
_ALIGNMENT = 64
_LENGTH_BYTES = 8


class SharedLabels:
    """The memory file of one call.

    Args:
        descriptor: of the file; it stays the caller's. None: there is none, and nothing is shared.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = None if descriptor is None else os.dup(descriptor)

    def read(self) -> dict[Hashable, Labels]:
        """Labels that another worker has written, read-only and without a copy; none where nobody has finished writing."""
        size = 0 if self._descriptor is None else os.fstat(self._descriptor).st_size
        if self._descriptor is None or size < _INDEX_BYTES:
            return {}
        memory = map_memory(self._descriptor, size, writable=False)
        length = int(memory[:_LENGTH_BYTES].view(np.uint64)[0])
        found: dict[Hashable, Labels] = {}
        for key, shape, start in json.loads(memory[_LENGTH_BYTES : _LENGTH_BYTES + length].tobytes() or b"[]"):
            stop = start + 4 * math.prod(shape)
            found[tuple(key)] = memory[start:stop].view(np.int32).reshape(shape)
        return found

    def share(self, labels: Mapping[Hashable, Labels]) -> None:
        """Write labels for the others, unless some are there already or they are too many to list.

        Args:
            labels: int32 arrays by key, a tuple of names and numbers.
        """
        if self._descriptor is None or not labels or self.read():
            return
        index: list[tuple[Hashable, tuple[int, ...], int]] = []
        end = _INDEX_BYTES
        for key, array in labels.items():
            index.append((key, array.shape, end))
            end = -(-(end + array.nbytes) // _ALIGNMENT) * _ALIGNMENT
        encoded = json.dumps(index).encode()
        if len(encoded) > _INDEX_BYTES - _LENGTH_BYTES:
            return
        os.ftruncate(self._descriptor, end)
        memory = map_memory(self._descriptor, end, writable=True)
        for (_, _, start), array in zip(index, labels.values(), strict=True):
            memory[start : start + array.nbytes] = np.ascontiguousarray(array, np.int32).reshape(-1).view(np.uint8)
        memory[_LENGTH_BYTES : _LENGTH_BYTES + len(encoded)] = np.frombuffer(encoded, np.uint8)
        memory[:_LENGTH_BYTES].view(np.uint64)[0] = len(encoded)

    def close(self) -> None:
        """Let go of the file. Labels taken before keep it mapped until they are gone."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
