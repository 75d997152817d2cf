"""Chunks survive any way of cutting and mixing them, and nothing else gets through."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from voxplain import wire
from voxplain.errors import ChecksumMismatch, InvalidSpec, InvalidTensor, VoxplainError
from voxplain.v1 import explain_pb2, tensor_pb2

IDS = st.text(alphabet="ABCxyz019._-", min_size=1, max_size=64)
TENSORS = st.dictionaries(IDS, st.binary(min_size=1, max_size=200), min_size=1, max_size=4)


def sinks(tensors: dict[str, bytes]) -> tuple[dict[str, bytearray], wire.Assembler]:
    memory = {key: bytearray(len(data)) for key, data in tensors.items()}

    def write(tensor_id: str, offset: int, data: memoryview) -> None:
        memory[tensor_id][offset : offset + len(data)] = data

    return memory, wire.Assembler({key: len(data) for key, data in tensors.items()}, write)


def chunk(data: bytes = b"1234", *, tensor_id: str = "a", offset: int = 0, crc: int | None = None) -> wire.ChunkView:
    return wire.ChunkView(tensor_id=tensor_id, offset_bytes=offset, data=memoryview(data), crc32c=crc)


@given(TENSORS, st.data())
def test_any_split_order_and_interleaving_gives_the_same_bytes(tensors: dict[str, bytes], data: st.DataObject) -> None:
    memory, assembler = sinks(tensors)
    waiting = {}
    for key, payload in tensors.items():
        size = data.draw(st.integers(1, 64))
        with_checksum = data.draw(st.booleans())
        waiting[key] = list(wire.encode_chunks(key, payload, chunk_bytes=size, with_checksum=with_checksum))
    while waiting:
        key = data.draw(st.sampled_from(sorted(waiting)))
        received = wire.decode_request(waiting[key].pop(0))
        assert isinstance(received, wire.ChunkView)
        assert not assembler.complete
        assembler.add(received)
        if not waiting[key]:
            del waiting[key]
    assert assembler.complete
    assert assembler.missing() == ()
    assert assembler.bytes_received == assembler.bytes_total == sum(map(len, tensors.values()))
    assert memory == {key: bytearray(payload) for key, payload in tensors.items()}


@given(IDS, st.binary(min_size=1, max_size=300), st.integers(1, 300), st.booleans())
def test_protobuf_reads_what_is_written_by_hand_and_writes_the_same_bytes(
    tensor_id: str, payload: bytes, size: int, with_checksum: bool
) -> None:
    for response, message in ((False, explain_pb2.ExplainRequest), (True, explain_pb2.ExplainResponse)):
        joined = b""
        for encoded in wire.encode_chunks(tensor_id, payload, response=response, with_checksum=with_checksum, chunk_bytes=size):
            parsed = message.FromString(encoded)
            assert parsed.chunk.tensor_id == tensor_id
            assert parsed.chunk.offset_bytes == len(joined)
            assert parsed.chunk.HasField("crc32c") == with_checksum
            assert not with_checksum or parsed.chunk.crc32c == wire.checksum(parsed.chunk.data)
            assert parsed.SerializeToString(deterministic=True) == encoded
            joined += parsed.chunk.data
        assert joined == payload


@given(
    st.text(max_size=70),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=300),
    st.none() | st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_the_hand_parser_reads_whatever_protobuf_writes(
    tensor_id: str, offset: int, payload: bytes, crc: int | None, response: bool
) -> None:
    sent = tensor_pb2.TensorChunk(tensor_id=tensor_id, offset_bytes=offset, data=payload, crc32c=crc)
    got: object
    if response:
        got = wire.decode_response(explain_pb2.ExplainResponse(chunk=sent).SerializeToString())
    else:
        got = wire.decode_request(explain_pb2.ExplainRequest(chunk=sent).SerializeToString())
    assert isinstance(got, wire.ChunkView)
    assert (got.tensor_id, got.offset_bytes, bytes(got.data), got.crc32c) == (tensor_id, offset, payload, crc)


def assert_read_as_protobuf_reads(buffer: bytes) -> None:
    try:
        expected = explain_pb2.ExplainRequest.FromString(buffer)
    except DecodeError:
        with pytest.raises(VoxplainError) as refused:
            wire.decode_request(buffer)
        assert refused.value.reason == "MALFORMED_MESSAGE"
        return
    if expected.WhichOneof("message") is None:
        with pytest.raises(InvalidSpec) as refused:
            wire.decode_request(buffer)
        assert refused.value.reason == "EMPTY_MESSAGE"
        return
    got = wire.decode_request(buffer)
    if isinstance(got, wire.ChunkView):
        assert expected.WhichOneof("message") == "chunk"
        known = expected.chunk
        assert (got.tensor_id, got.offset_bytes, bytes(got.data)) == (known.tensor_id, known.offset_bytes, known.data)
        assert got.crc32c == (known.crc32c if known.HasField("crc32c") else None)
    else:
        assert expected.spec == got


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"\x12" + tail))
def test_arbitrary_bytes_are_understood_exactly_as_protobuf_understands_them(buffer: bytes) -> None:
    assert_read_as_protobuf_reads(buffer)


@given(st.binary(min_size=1, max_size=40), st.integers(0, 200), st.integers(0, 255))
def test_a_message_with_one_changed_byte_is_understood_as_protobuf_understands_it(
    payload: bytes, place: int, value: int
) -> None:
    (encoded,) = wire.encode_chunks("t1c", payload)
    changed = bytearray(encoded)
    changed[place % len(changed)] = value
    assert_read_as_protobuf_reads(bytes(changed))


def test_legal_encodings_of_another_field_order_are_accepted() -> None:
    body = b"\x20\x07" + b"\x1a\x02hi" + b"\x10\x05" + b"\x0a\x01a"
    got = wire.decode_request(b"\x12" + bytes([len(body)]) + body)
    assert isinstance(got, wire.ChunkView)
    assert (got.tensor_id, got.offset_bytes, bytes(got.data), got.crc32c) == ("a", 5, b"hi", 7)


def test_the_last_of_two_messages_in_one_counts_as_protobuf_says() -> None:
    spec = explain_pb2.ExplainRequest(spec=explain_pb2.ExplainSpec(model="m")).SerializeToString()
    (encoded,) = wire.encode_chunks("a", b"12")
    assert isinstance(wire.decode_request(spec + encoded), wire.ChunkView)
    assert isinstance(wire.decode_request(encoded + spec), explain_pb2.ExplainSpec)


def test_a_varint_without_end_is_refused_without_reading_it_all() -> None:
    with pytest.raises(InvalidTensor) as refused:
        wire.decode_request(b"\x12" + b"\x80" * (1 << 20))
    assert refused.value.reason == "MALFORMED_MESSAGE"


def test_the_view_of_a_received_chunk_shares_the_message_memory() -> None:
    (encoded,) = wire.encode_chunks("a", b"x" * 100)
    got = wire.decode_request(encoded)
    assert isinstance(got, wire.ChunkView)
    assert got.data.obj is encoded


@pytest.mark.parametrize(
    ("sequence", "reason"),
    [
        ([chunk(tensor_id="other")], "CHUNK_UNKNOWN_TENSOR"),
        ([chunk(b"")], "CHUNK_EMPTY"),
        ([chunk(b"x" * (wire.MAX_CHUNK_BYTES + 1))], "CHUNK_TOO_LARGE"),
        ([chunk(offset=1)], "CHUNK_GAP"),
        ([chunk(b"1"), chunk(b"2")], "CHUNK_OVERLAP"),
        ([chunk(b"12345")], "CHUNK_OVERRUN"),
        ([chunk(), chunk()], "CHUNK_AFTER_END"),
        ([chunk(), chunk(offset=4)], "CHUNK_AFTER_END"),
        ([chunk(crc=1)], "CHECKSUM_MISMATCH"),
        ([chunk(offset=2**64 - 1)], "CHUNK_GAP"),
    ],
)
def test_a_chunk_that_breaks_the_contract_is_refused_with_its_own_reason(sequence: list[wire.ChunkView], reason: str) -> None:
    written: list[bytes] = []
    assembler = wire.Assembler({"z": 9, "a": 4}, lambda _, __, data: written.append(bytes(data)))
    for good in sequence[:-1]:
        assembler.add(good)
    before = list(written)
    with pytest.raises(VoxplainError) as refused:
        assembler.add(sequence[-1])
    assert refused.value.reason == reason
    assert isinstance(refused.value, ChecksumMismatch if reason == "CHECKSUM_MISMATCH" else InvalidTensor)
    assert refused.value.field == ("chunk.tensor_id" if reason == "CHUNK_UNKNOWN_TENSOR" else "tensors[1]")
    assert written == before


def test_no_error_names_the_tensor_by_its_id() -> None:
    assembler = wire.Assembler({"jane-doe": 4}, lambda *_: None)
    for bad in (chunk(tensor_id="john-doe"), chunk(b"12345", tensor_id="jane-doe"), chunk(offset=9, tensor_id="jane-doe")):
        with pytest.raises(InvalidTensor) as refused:
            assembler.add(bad)
        assert "doe" not in str(refused.value) + refused.value.field


def test_a_stream_that_ends_early_names_the_first_tensor_that_lacks_bytes() -> None:
    assembler = wire.Assembler({"a": 4, "b": 4}, lambda *_: None)
    assembler.add(chunk())
    assert assembler.missing() == ("tensors[1]",)
    with pytest.raises(InvalidTensor) as refused:
        assembler.raise_if_incomplete()
    assert (refused.value.reason, refused.value.field) == ("STREAM_CLOSED_EARLY", "tensors[1]")
    assembler.add(chunk(tensor_id="b"))
    assembler.raise_if_incomplete()


def test_a_client_may_learn_of_maps_one_by_one() -> None:
    assembler = wire.Assembler({}, lambda *_: None)
    assert assembler.complete
    assembler.expect("map", 4)
    assert not assembler.complete
    assembler.add(chunk(tensor_id="map"))
    assert assembler.complete


Change = Callable[[list[wire.ChunkView]], list[wire.ChunkView]]


@given(TENSORS, st.integers(1, 50), st.data())
def test_a_mutated_sequence_is_refused_or_gives_the_same_bytes(
    tensors: dict[str, bytes], size: int, data: st.DataObject
) -> None:
    sequence = []
    for key, payload in tensors.items():
        for encoded in wire.encode_chunks(key, payload, chunk_bytes=size):
            got = wire.decode_request(encoded)
            assert isinstance(got, wire.ChunkView)
            sequence.append(got)
    place = data.draw(st.integers(0, len(sequence) - 1))
    victim = sequence[place]
    mutation = data.draw(st.sampled_from(["drop", "double", "swap", "shift", "flip", "rename", "cut"]))
    if mutation == "drop":
        del sequence[place]
    elif mutation == "double":
        sequence.insert(place, victim)
    elif mutation == "swap":
        other = data.draw(st.integers(0, len(sequence) - 1))
        sequence[place], sequence[other] = sequence[other], victim
    elif mutation == "shift":
        offset = max(0, victim.offset_bytes + data.draw(st.integers(-3, 3)))
        sequence[place] = chunk(bytes(victim.data), tensor_id=victim.tensor_id, offset=offset, crc=victim.crc32c)
    elif mutation == "flip":
        flipped = bytearray(victim.data)
        flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= data.draw(st.integers(1, 255))
        sequence[place] = chunk(bytes(flipped), tensor_id=victim.tensor_id, offset=victim.offset_bytes, crc=victim.crc32c)
    elif mutation == "rename":
        name = data.draw(st.sampled_from([*tensors, "no such tensor"]))
        sequence[place] = chunk(bytes(victim.data), tensor_id=name, offset=victim.offset_bytes, crc=victim.crc32c)
    else:
        shorter = bytes(victim.data)[:-1]
        sequence[place] = chunk(shorter, tensor_id=victim.tensor_id, offset=victim.offset_bytes, crc=victim.crc32c)
    memory, assembler = sinks(tensors)
    try:
        for received in sequence:
            assembler.add(received)
        assembler.raise_if_incomplete()
    except VoxplainError:
        return
    assert memory == {key: bytearray(payload) for key, payload in tensors.items()}


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i4", "<i2", ">i2", "u1"])
def test_arrays_travel_little_endian_in_c_order(dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype).transpose(2, 0, 1)[:, ::-1]
    header = tensor_pb2.Tensor(shape=array.shape, data_type=wire.data_type_of(array.dtype))
    raw = wire.array_bytes(array)
    assert raw.nbytes == wire.tensor_bytes(header)
    back = np.frombuffer(raw, dtype=wire.DTYPES[header.data_type]).reshape(array.shape)
    assert np.array_equal(back, array)


def test_a_contiguous_array_is_not_copied_on_its_way() -> None:
    array = np.zeros((3, 4), dtype="<f4")
    raw = wire.array_bytes(array)
    array[0, 0] = 1.0
    assert bytes(raw[:4]) == array[0, 0].tobytes()


def test_a_type_that_does_not_travel_is_refused() -> None:
    with pytest.raises(InvalidTensor):
        wire.data_type_of(np.float64)
    with pytest.raises(InvalidSpec):
        wire.tensor_bytes(tensor_pb2.Tensor(shape=[1]))


def test_absurd_shapes_do_not_overflow_the_byte_count() -> None:
    header = tensor_pb2.Tensor(shape=[2**32 - 1] * 3, data_type=tensor_pb2.DATA_TYPE_FLOAT32)
    assert wire.tensor_bytes(header) == 4 * (2**32 - 1) ** 3


def test_an_affine_of_another_length_is_refused() -> None:
    assert wire.geometry_of(tensor_pb2.Tensor(shape=[2, 2])).affine is None
    geometry = wire.geometry_of(tensor_pb2.Tensor(shape=[2, 2, 2], affine=np.diag([2.0, 3, 4, 1]).ravel()))
    assert geometry.spacing_mm == (2.0, 3.0, 4.0)
    with pytest.raises(InvalidSpec) as refused:
        wire.geometry_of(tensor_pb2.Tensor(shape=[2, 2], affine=[1.0] * 12))
    assert refused.value.reason == "AFFINE_INVALID"


@pytest.mark.parametrize("chunk_bytes", [0, -1, wire.MAX_CHUNK_BYTES + 1])
def test_chunks_outside_the_limits_are_not_made(chunk_bytes: int) -> None:
    with pytest.raises(ValueError, match="chunk_bytes"):
        list(wire.encode_chunks("a", b"12", chunk_bytes=chunk_bytes))
