"""Maps as they come in: a header, then its chunks."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
from voxplain.errors import InvalidTensor
from voxplain.v1 import explain_pb2
from voxplain.volume import Geometry
from voxplain.wire import DTYPES, Assembler, ChunkView, geometry_of, tensor_bytes

from voxplain_client.events import MapReceived


class MapAssembly:
    """Puts the maps of one call together and checks every byte on the way."""

    def __init__(self) -> None:
        self._assembler = Assembler({}, self._write)
        self._buffer = bytearray()
        self._header: explain_pb2.Map | None = None
        self._labels: dict[str, MapReceived] = {}

    def begin(self, header: explain_pb2.Map) -> None:
        """Take the header of the next map.

        Raises:
            InvalidTensor: MAP_INCOMPLETE, the map before lacks bytes; MAP_SIZE, shape and size_bytes do not agree.
        """
        if self._header is not None:
            raise InvalidTensor(
                "MAP_INCOMPLETE", "the server began a map before the one before was whole", field=header.method_key
            )
        size = tensor_bytes(header)
        if size != header.size_bytes or size == 0:
            raise InvalidTensor(
                "MAP_SIZE", "the server announced a map whose size and shape do not agree", field=header.method_key
            )
        self._header = header
        self._buffer = bytearray(size)
        self._assembler.expect(header.id, size)

    def add(self, chunk: ChunkView) -> MapReceived | None:
        """Take a chunk of the map announced last; the map, once it is whole.

        Raises:
            InvalidTensor: the chunk breaks the contract.
            ChecksumMismatch: its bytes were changed on their way.
        """
        self._assembler.add(chunk)
        if self._header is None or not self._assembler.complete:
            return None
        header, self._header = self._header, None
        received = self._finish(header, np.frombuffer(self._buffer, dtype=DTYPES[header.data_type]))
        if header.quantity == explain_pb2.QUANTITY_LABELS:
            self._labels[header.id] = received
        return received

    def _write(self, tensor_id: str, offset: int, data: memoryview) -> None:
        del tensor_id
        self._buffer[offset : offset + len(data)] = data

    def _finish(self, header: explain_pb2.Map, flat: npt.NDArray[Any]) -> MapReceived:
        digest = hashlib.sha256(flat.data).hexdigest()
        geometry, array = geometry_of(header), flat.reshape(tuple(header.shape))
        if header.labels_id:
            geometry, array = self._spread(header, flat)
        array.flags.writeable = False
        return MapReceived(header=header, array=array, geometry=geometry, sha256=digest)

    def _spread(self, header: explain_pb2.Map, values: npt.NDArray[Any]) -> tuple[Geometry, npt.NDArray[Any]]:
        """One value for each label becomes one for each voxel: voxel = values[label]."""
        labels = self._labels.get(header.labels_id)
        if labels is None or labels.array.min() < 0 or labels.array.max() >= values.size:
            raise InvalidTensor("MAP_LABELS", "the server sent values whose labels are not there", field=header.method_key)
        return labels.geometry, values[labels.array]
