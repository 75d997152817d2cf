"""Tensors on the wire: headers, chunks, checksums, and the order in which chunks must come.

A chunk message is written and read by hand, because protobuf would copy its bytes twice more on the way that carries a whole
case. Whatever does not have the usual form goes through protobuf, so every legal encoding is understood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import google_crc32c
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from voxplain.errors import ChecksumMismatch, InvalidSpec, InvalidTensor, VoxplainError
from voxplain.v1 import explain_pb2, tensor_pb2
from voxplain.volume import Geometry

MAX_CHUNK_BYTES = 1 << 20
"""The most bytes of data in one chunk."""

Buffer = bytes | bytearray | memoryview
Write = Callable[[str, int, memoryview], None]
"""Takes a tensor id, the offset in bytes, and the bytes, which are only borrowed for the call."""

DTYPES: Mapping[tensor_pb2.DataType.ValueType, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
    tensor_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DATA_TYPE_INT16: np.dtype("<i2"),
}
"""The numpy type of every DataType on the wire."""

_REQUEST_CHUNK = 0x12  # field 2, length-delimited
_RESPONSE_CHUNK = 0x2A  # field 5, length-delimited
_TENSOR_ID, _OFFSET, _DATA, _CRC32C = 0x0A, 0x10, 0x1A, 0x20

_Message = TypeVar("_Message", explain_pb2.ExplainRequest, explain_pb2.ExplainResponse)


@dataclass(frozen=True, slots=True, eq=False)
class ChunkView:
    """A TensorChunk that was received, its data not copied.

    Attributes:
        tensor_id: the tensor or map.
        offset_bytes: where in it the first byte lies.
        data: the bytes; the view keeps the message it lies in alive.
        crc32c: the sender's CRC-32C of `data`, None where it sent none.
    """

    tensor_id: str
    offset_bytes: int
    data: memoryview
    crc32c: int | None


def tensor_bytes(header: tensor_pb2.Tensor | explain_pb2.Map) -> int:
    """Bytes of the tensor that a header announces.

    Raises:
        InvalidSpec: DATA_TYPE_UNKNOWN.
    """
    dtype = DTYPES.get(header.data_type)
    if dtype is None:
        raise InvalidSpec("DATA_TYPE_UNKNOWN", "set data_type to one of the types of the contract", field="data_type")
    size = dtype.itemsize
    for edge in header.shape:
        size *= edge
    return size


def data_type_of(dtype: npt.DTypeLike) -> tensor_pb2.DataType.ValueType:
    """The DataType of a numpy type, whatever its byte order.

    Raises:
        InvalidTensor: DATA_TYPE_UNKNOWN, for a type that does not travel.
    """
    wanted = np.dtype(dtype).newbyteorder("<")
    for data_type, known in DTYPES.items():
        if known == wanted:
            return data_type
    raise InvalidTensor("DATA_TYPE_UNKNOWN", "convert the voxels to float32, int32, int16 or uint8")


def geometry_of(header: tensor_pb2.Tensor | explain_pb2.Map) -> Geometry:
    """The grid that a header announces.

    Raises:
        InvalidSpec: AFFINE_INVALID, when the affine has neither 0 nor 16 numbers.
    """
    if len(header.affine) not in (0, 16):
        raise InvalidSpec("AFFINE_INVALID", "an affine has 16 numbers, or none where it is not known", field="affine")
    affine = np.array(header.affine, dtype=np.float64).reshape(4, 4) if header.affine else None
    return Geometry(shape=tuple(header.shape), affine=affine)


def array_bytes(array: npt.NDArray[Any]) -> memoryview:
    """The bytes of an array as they travel: C order, little-endian. Copies only where the array is not so already."""
    dtype = DTYPES[data_type_of(array.dtype)]
    return np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8).data


def checksum(data: Buffer) -> int:
    """CRC-32C (Castagnoli) of contiguous bytes."""
    # The extension takes no memoryview; an array around it costs nothing and is taken.
    return int(google_crc32c.value(data if isinstance(data, bytes) else np.frombuffer(data, dtype=np.uint8)))


def encode_chunks(
    tensor_id: str,
    data: Buffer,
    *,
    response: bool = False,
    with_checksum: bool = True,
    chunk_bytes: int = MAX_CHUNK_BYTES,
) -> Iterator[bytes]:
    """Cut a tensor into serialised messages, each made with one copy of its bytes.

    Args:
        tensor_id: the tensor (or map) that the bytes belong to.
        data: C-contiguous bytes-like object.
        response: True: ExplainResponse messages; False: ExplainRequest messages.
        with_checksum: whether every chunk carries its CRC-32C.
        chunk_bytes: bytes of data in each but the last, 1 to MAX_CHUNK_BYTES.

    Raises:
        ValueError: chunk_bytes is out of its range.
    """
    if not 1 <= chunk_bytes <= MAX_CHUNK_BYTES:
        raise ValueError("chunk_bytes must lie between 1 and MAX_CHUNK_BYTES")
    view = memoryview(data).cast("B")
    identifier = tensor_id.encode()
    prefix = bytes([_TENSOR_ID]) + _varint(len(identifier)) + identifier
    outer = bytes([_RESPONSE_CHUNK if response else _REQUEST_CHUNK])
    for offset in range(0, len(view), chunk_bytes):
        part = view[offset : offset + chunk_bytes]
        place = bytes([_OFFSET]) + _varint(offset) if offset else b""
        head = prefix + place + bytes([_DATA]) + _varint(len(part))
        tail = bytes([_CRC32C]) + _varint(checksum(part)) if with_checksum else b""
        yield b"".join([outer, _varint(len(head) + len(part) + len(tail)), head, part, tail])


def decode_request(buffer: bytes) -> explain_pb2.ExplainSpec | ChunkView:
    """Read one ExplainRequest.

    Raises:
        InvalidSpec: MALFORMED_MESSAGE or EMPTY_MESSAGE.
        InvalidTensor: MALFORMED_MESSAGE, for a message that began as a chunk.
    """
    chunk = _read_chunk(buffer, _REQUEST_CHUNK)
    if chunk is not None:
        return chunk
    request = _parse(explain_pb2.ExplainRequest, buffer, _REQUEST_CHUNK)
    kind = request.WhichOneof("message")
    if kind is None:
        raise InvalidSpec("EMPTY_MESSAGE", "every message holds a spec or a chunk")
    return request.spec if kind == "spec" else _view(request.chunk)


def decode_response(buffer: bytes) -> explain_pb2.ExplainResponse | ChunkView:
    """Read one ExplainResponse; a chunk comes as a view.

    Raises:
        InvalidSpec, InvalidTensor: MALFORMED_MESSAGE.
    """
    chunk = _read_chunk(buffer, _RESPONSE_CHUNK)
    if chunk is not None:
        return chunk
    response = _parse(explain_pb2.ExplainResponse, buffer, _RESPONSE_CHUNK)
    return _view(response.chunk) if response.WhichOneof("event") == "chunk" else response


class Assembler:
    """Takes chunks as they come, refuses what breaks the contract, and hands good bytes to a sink.

    Args:
        sizes: bytes of every tensor that is expected, by id, in the order of the spec; fields of errors are named
            `tensors[i]` after this order.
        write: where good bytes go.
    """

    def __init__(self, sizes: Mapping[str, int], write: Write) -> None:
        self._sizes = dict(sizes)
        self._places = {tensor_id: place for place, tensor_id in enumerate(self._sizes)}
        self._received = dict.fromkeys(self._sizes, 0)
        self._write = write
        self._left = sum(self._sizes.values())

    @property
    def complete(self) -> bool:
        """Whether every byte of every tensor is there."""
        return self._left == 0

    @property
    def bytes_received(self) -> int:
        """Bytes taken so far, of all tensors."""
        return sum(self._received.values())

    @property
    def bytes_total(self) -> int:
        """Bytes expected, of all tensors."""
        return sum(self._sizes.values())

    def expect(self, tensor_id: str, size: int) -> None:
        """Expect one more tensor of `size` bytes; how a client learns of maps one by one."""
        self._places[tensor_id] = len(self._sizes)
        self._sizes[tensor_id] = size
        self._received[tensor_id] = 0
        self._left += size

    def missing(self) -> tuple[str, ...]:
        """Fields of the tensors that lack bytes, for example ("tensors[2]",)."""
        return tuple(f"tensors[{self._places[key]}]" for key, size in self._sizes.items() if self._received[key] < size)

    def add(self, chunk: ChunkView) -> None:
        """Take one chunk.

        Raises:
            InvalidTensor: CHUNK_UNKNOWN_TENSOR, CHUNK_EMPTY, CHUNK_TOO_LARGE, CHUNK_AFTER_END, CHUNK_GAP, CHUNK_OVERLAP,
                CHUNK_OVERRUN. Nothing of the chunk was written.
            ChecksumMismatch: CHECKSUM_MISMATCH. Nothing of the chunk was written.
        """
        place = self._places.get(chunk.tensor_id)
        if place is None:
            raise InvalidTensor(
                "CHUNK_UNKNOWN_TENSOR", "send chunks only of tensors that the spec declares", field="chunk.tensor_id"
            )
        fault = self._fault(chunk, f"tensors[{place}]")
        if fault is not None:
            raise fault
        self._write(chunk.tensor_id, chunk.offset_bytes, chunk.data)
        self._received[chunk.tensor_id] += len(chunk.data)
        self._left -= len(chunk.data)

    def raise_if_incomplete(self) -> None:
        """To be called when the stream has ended.

        Raises:
            InvalidTensor: STREAM_CLOSED_EARLY, naming the first tensor that lacks bytes.
        """
        missing = self.missing()
        if missing:
            raise InvalidTensor("STREAM_CLOSED_EARLY", "send every declared byte before closing", field=missing[0])

    def _fault(self, chunk: ChunkView, field: str) -> VoxplainError | None:
        size, received, length = self._sizes[chunk.tensor_id], self._received[chunk.tensor_id], len(chunk.data)
        if length == 0:
            return InvalidTensor("CHUNK_EMPTY", "a chunk holds at least one byte", field=field)
        if length > MAX_CHUNK_BYTES:
            return InvalidTensor("CHUNK_TOO_LARGE", f"a chunk holds at most {MAX_CHUNK_BYTES} bytes", field=field)
        if received == size:
            return InvalidTensor("CHUNK_AFTER_END", "all declared bytes were there already", field=field)
        if chunk.offset_bytes > received:
            return InvalidTensor("CHUNK_GAP", "offset_bytes must equal the bytes sent before; some are missing", field=field)
        if chunk.offset_bytes < received:
            return InvalidTensor("CHUNK_OVERLAP", "offset_bytes must equal the bytes sent before; some come twice", field=field)
        if received + length > size:
            return InvalidTensor("CHUNK_OVERRUN", "more bytes than shape and data_type declare", field=field)
        if chunk.crc32c is not None and checksum(chunk.data) != chunk.crc32c:
            return ChecksumMismatch("CHECKSUM_MISMATCH", "the bytes were changed on their way; send again", field=field)
        return None


def _view(chunk: tensor_pb2.TensorChunk) -> ChunkView:
    return ChunkView(
        tensor_id=chunk.tensor_id,
        offset_bytes=chunk.offset_bytes,
        data=memoryview(chunk.data),
        crc32c=chunk.crc32c if chunk.HasField("crc32c") else None,
    )


def _parse(message: type[_Message], buffer: bytes, chunk_tag: int) -> _Message:
    try:
        return message.FromString(buffer)
    except DecodeError:
        fault = InvalidTensor if buffer[:1] == bytes([chunk_tag]) else InvalidSpec
        raise fault("MALFORMED_MESSAGE", "a message could not be read; build it from the contract's stubs") from None


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(buffer: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = buffer[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise IndexError("a varint has at most ten bytes")


def _read_chunk(buffer: bytes, outer: int) -> ChunkView | None:
    """Read a chunk of the usual form (every field once, in order, nothing else); None: let protobuf look."""
    try:
        return _read_usual_chunk(buffer, outer)
    except (IndexError, UnicodeDecodeError):
        return None


def _read_usual_chunk(buffer: bytes, outer: int) -> ChunkView | None:
    if buffer[0] != outer:
        return None
    length, at = _read_varint(buffer, 1)
    if at + length != len(buffer) or buffer[at] != _TENSOR_ID:
        return None
    length, at = _read_varint(buffer, at + 1)
    identifier = buffer[at : at + length].decode() if length <= 256 else ""
    at += length
    offset = 0
    if buffer[at] == _OFFSET:
        offset, at = _read_varint(buffer, at + 1)
    if not identifier or buffer[at] != _DATA or offset >= 1 << 64:
        return None
    length, at = _read_varint(buffer, at + 1)
    data = memoryview(buffer)[at : at + length]
    at += length
    crc: int | None = None
    if at < len(buffer):
        if buffer[at] != _CRC32C:
            return None
        crc, at = _read_varint(buffer, at + 1)
        if crc >= 1 << 32:
            return None
    return ChunkView(tensor_id=identifier, offset_bytes=offset, data=data, crc32c=crc) if at == len(buffer) else None
