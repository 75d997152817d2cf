"""Maps are put together from their chunks, and nothing wrong gets through."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from voxplain.errors import ChecksumMismatch, InvalidTensor
from voxplain.v1 import explain_pb2, tensor_pb2
from voxplain.wire import ChunkView, checksum
from voxplain_client.events import MapReceived
from voxplain_client.map_assembly import MapAssembly


def header(name: str, shape: tuple[int, ...], **more: object) -> explain_pb2.Map:
    """A header whose size is right."""
    size = 4 * int(np.prod(shape))
    made = explain_pb2.Map(id=name, method_key="lime", data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=shape, size_bytes=size)
    made.MergeFrom(explain_pb2.Map(**more))  # type: ignore[arg-type]
    return made


def chunk(name: str, data: bytes, *, offset: int = 0, crc32c: int | None = None) -> ChunkView:
    """One chunk."""
    return ChunkView(tensor_id=name, offset_bytes=offset, data=memoryview(data), crc32c=crc32c)


def receive(assembly: MapAssembly, announced: explain_pb2.Map, data: bytes) -> MapReceived:
    """A map in one chunk."""
    assembly.begin(announced)
    received = assembly.add(chunk(announced.id, data, crc32c=checksum(data)))
    assert received is not None
    return received


def test_a_map_is_whole_after_its_last_chunk_only() -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    data = values.tobytes()
    assembly = MapAssembly()
    assembly.begin(header("a", (2, 3), affine=list(range(16))))
    assert assembly.add(chunk("a", data[:10])) is None
    received = assembly.add(chunk("a", data[10:], offset=10))
    assert received is not None
    np.testing.assert_array_equal(received.array, values)
    assert received.sha256 == hashlib.sha256(data).hexdigest()
    assert received.geometry.affine is not None
    np.testing.assert_array_equal(received.geometry.affine, np.arange(16).reshape(4, 4))


def test_values_by_label_are_spread_over_the_voxels() -> None:
    assembly = MapAssembly()
    labels = np.array([[0, 1], [2, 1]], dtype="<i4")
    announced = header("labels", (2, 2), quantity=explain_pb2.QUANTITY_LABELS, data_type=tensor_pb2.DATA_TYPE_INT32)
    receive(assembly, announced, labels.tobytes())
    values = np.array([0.0, -1.5, 4.0], dtype="<f4")
    received = receive(assembly, header("a", (3,), labels_id="labels", snapshot=True), values.tobytes())
    np.testing.assert_array_equal(received.array, [[0.0, -1.5], [4.0, -1.5]])
    assert received.geometry.shape == (2, 2)


def test_values_for_labels_that_are_not_there_are_refused() -> None:
    assembly = MapAssembly()
    announced = header("labels", (2,), quantity=explain_pb2.QUANTITY_LABELS, data_type=tensor_pb2.DATA_TYPE_INT32)
    receive(assembly, announced, np.array([0, 3], dtype="<i4").tobytes())
    with pytest.raises(InvalidTensor, match="labels"):
        receive(assembly, header("a", (3,), labels_id="labels"), bytes(12))
    with pytest.raises(InvalidTensor, match="labels"):
        receive(assembly, header("b", (3,), labels_id="others"), bytes(12))


def test_changed_bytes_are_refused() -> None:
    assembly = MapAssembly()
    assembly.begin(header("a", (2,)))
    with pytest.raises(ChecksumMismatch):
        assembly.add(chunk("a", bytes(8), crc32c=1))


def test_a_header_whose_size_is_not_its_shapes_is_refused() -> None:
    wrong = header("a", (2, 2))
    wrong.size_bytes = 1 << 40
    with pytest.raises(InvalidTensor, match="size"):
        MapAssembly().begin(wrong)


def test_a_second_map_before_the_first_is_whole_is_refused() -> None:
    assembly = MapAssembly()
    assembly.begin(header("a", (2,)))
    with pytest.raises(InvalidTensor, match="before"):
        assembly.begin(header("b", (2,)))
