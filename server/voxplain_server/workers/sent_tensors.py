"""The tensors of a call, as they lie in its memory file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from voxplain.v1 import explain_pb2, method_pb2
from voxplain.wire import DTYPES
from voxplain.worker.v1 import worker_pb2

from voxplain_server.models.case_building import ClientTensor
from voxplain_server.workers.memory import map_memory


class SentTensors:
    """Reads them where they are; nothing is copied.

    Args:
        places: where each lies.
        memory: descriptor of the memory file; it stays the caller's.
    """

    def __init__(self, places: Sequence[worker_pb2.Place], memory: int) -> None:
        self._places = places
        size = max((place.offset + place.size for place in places), default=0)
        self._bytes = map_memory(memory, size, writable=False)

    def read(self) -> list[ClientTensor]:
        """Every tensor with its header."""
        return [
            ClientTensor(place.header, self._raw(place).view(DTYPES[place.header.data_type]).reshape(tuple(place.header.shape)))
            for place in self._places
        ]

    def digests(self) -> list[explain_pb2.TensorDigest]:
        """SHA-256 of every tensor's bytes."""
        return [
            explain_pb2.TensorDigest(tensor=place.header, sha256=hashlib.sha256(self._raw(place).data).hexdigest())
            for place in self._places
        ]

    def close(self) -> None:
        """Let go of the memory."""
        self._bytes = np.zeros(0, dtype=np.uint8)

    def _raw(self, place: worker_pb2.Place) -> npt.NDArray[np.uint8]:
        return self._bytes[place.offset : place.offset + place.size]


def asks_for_donors(methods: Iterable[method_pb2.Method]) -> bool:
    """Whether any method looks at background cases; else those of the bundle are not read."""
    for method in methods:
        which = method.WhichOneof("method") or ""
        params = getattr(method, which, None)
        baselines = [getattr(params, name, None) for name in ("baseline", "fill")]
        if which == "feature_permutation" or any(
            each.WhichOneof("kind") == "background" for each in baselines if isinstance(each, method_pb2.Baseline)
        ):
            return True
    return False
