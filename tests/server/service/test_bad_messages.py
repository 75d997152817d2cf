"""Whatever is wrong with what follows the spec: the first offending message ends the call, and the server goes on."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest
from voxplain import wire
from voxplain.v1 import explain_pb2, tensor_pb2
from voxplain_server.settings import Limits

from tests.server.service.front import (
    VOLUME_BYTES,
    case_messages,
    compute_for_ever,
    good_spec,
    payload,
    running_front,
    spec_message,
    tensors,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def views(*, checksum: bool = True) -> dict[str, list[tensor_pb2.TensorChunk]]:
    """Chunks of a good case as messages that a test can spoil."""
    found = {}
    for key, data in payload().items():
        encoded = wire.encode_chunks(key, data, chunk_bytes=100, with_checksum=checksum)
        found[key] = [explain_pb2.ExplainRequest.FromString(each).chunk for each in encoded]
    return found


def spoiled(how: str) -> list[tensor_pb2.TensorChunk]:
    first, second = views(checksum=how == "flip")["t1"], views()["t1c"]
    last = second[-1]
    match how:
        case "gap":
            del second[1]
        case "overlap":
            second[1].offset_bytes = 50
        case "overrun":
            last.data += b"more"
        case "overrun by offset":
            last.offset_bytes = VOLUME_BYTES
        case "after the end":
            first.append(tensor_pb2.TensorChunk(tensor_id="t1", offset_bytes=VOLUME_BYTES, data=b"x"))
        case "unknown":
            second[0].tensor_id = "t2"
        case "empty":
            second[0].ClearField("data")
        case "flip":
            second[2].data = bytes(100)
    return [*first, *second]


@pytest.mark.parametrize(
    ("how", "code", "reason", "field"),
    [
        ("gap", INVALID, "CHUNK_GAP", "tensors[1]"),
        ("overlap", INVALID, "CHUNK_OVERLAP", "tensors[1]"),
        ("overrun", INVALID, "CHUNK_OVERRUN", "tensors[1]"),
        ("overrun by offset", INVALID, "CHUNK_GAP", "tensors[1]"),
        ("after the end", INVALID, "CHUNK_AFTER_END", "tensors[0]"),
        ("unknown", INVALID, "CHUNK_UNKNOWN_TENSOR", "chunk.tensor_id"),
        ("empty", INVALID, "CHUNK_EMPTY", "tensors[1]"),
        ("flip", grpc.StatusCode.DATA_LOSS, "CHECKSUM_MISMATCH", "tensors[1]"),
    ],
)
async def test_the_first_offending_chunk_ends_the_call(how: str, code: grpc.StatusCode, reason: str, field: str) -> None:
    messages = [explain_pb2.ExplainRequest(chunk=each).SerializeToString() for each in spoiled(how)]
    if how == "overrun":
        chunk = spoiled(how)[-1]
        chunk.ClearField("crc32c")
        messages[-1] = explain_pb2.ExplainRequest(chunk=chunk).SerializeToString()
    async with running_front() as front:
        refused = await front.refusal(messages=messages)
        assert (refused.code, refused.reason, refused.fields) == (code, reason, [field])
        assert front.runner.jobs == []
        assert (await front.explain())[-1].WhichOneof("event") == "summary"


async def test_a_chunk_above_the_limit_is_refused() -> None:
    spec = good_spec()
    spec.model = "wide"
    shape = (128, 128, 32)
    del spec.tensors[:]
    spec.tensors.extend(tensors(shape))
    chunk = tensor_pb2.TensorChunk(tensor_id="t1", data=bytes((1 << 20) + 1))
    async with running_front() as front:
        refused = await front.refusal(spec, [explain_pb2.ExplainRequest(chunk=chunk).SerializeToString()])
        assert (refused.code, refused.reason, refused.fields) == (INVALID, "CHUNK_TOO_LARGE", ["tensors[0]"])


async def test_a_stream_that_closes_early_names_the_tensor_that_lacks_bytes() -> None:
    messages = [each for each in case_messages() if b"t1c" in each]
    async with running_front() as front:
        refused = await front.refusal(messages=messages, close=True)
        assert (refused.code, refused.reason, refused.fields) == (INVALID, "STREAM_CLOSED_EARLY", ["tensors[0]"])
        assert front.runner.jobs == []


async def test_a_stream_that_closes_without_a_spec_is_refused() -> None:
    async with running_front() as front:
        refused = await front.refusal_of([], close=True)
        assert (refused.code, refused.reason, refused.fields) == (INVALID, "SPEC_MISSING", ["spec"])


async def test_a_chunk_before_the_spec_is_refused() -> None:
    async with running_front() as front:
        refused = await front.refusal_of(case_messages()[:1])
        assert (refused.code, refused.reason, refused.fields) == (INVALID, "SPEC_MISSING", ["spec"])


@pytest.mark.parametrize("place", [1, 3])
async def test_a_second_spec_is_refused(place: int) -> None:
    messages = [spec_message(good_spec()), *case_messages()[:4]]
    messages.insert(place, messages[0])
    async with running_front() as front:
        refused = await front.refusal_of(messages)
        assert (refused.code, refused.reason, refused.fields) == (INVALID, "SPEC_TWICE", ["spec"])


@pytest.mark.parametrize("late", [case_messages()[0], spec_message(good_spec()), b"\xff\xff"])
async def test_what_comes_after_the_last_byte_stops_the_compute(late: bytes) -> None:
    async with running_front(compute_for_ever) as front:
        refused = await front.refusal(messages=[*case_messages(), late])
        assert refused.code is INVALID
        assert refused.reason in ("CHUNK_AFTER_END", "SPEC_TWICE", "MALFORMED_MESSAGE")
        assert front.runner.closed == 1


@pytest.mark.parametrize(("message", "reason"), [(b"\xff\xff\xff", "MALFORMED_MESSAGE"), (b"", "EMPTY_MESSAGE")])
async def test_messages_that_are_none_are_refused(message: bytes, reason: str) -> None:
    async with running_front() as front:
        assert (await front.refusal_of([message])).reason == reason
        assert (await front.refusal(messages=[message])).reason == reason


async def test_a_message_above_grpcs_limit_is_refused_and_the_server_goes_on() -> None:
    spec = good_spec()
    spec.checkpoint = bytes(5 << 20)
    async with running_front() as front:
        assert (await front.refusal(spec)).code is EXHAUSTED
        assert (await front.explain())[-1].WhichOneof("event") == "summary"


async def test_a_spec_that_does_not_come_is_not_waited_for() -> None:
    async with running_front(limits=Limits(first_message_seconds=0.2)) as front:
        refused = await front.refusal_of([])
        assert (refused.code, refused.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "FIRST_MESSAGE_LATE")


async def test_an_upload_below_the_minimum_rate_is_ended() -> None:
    limits = Limits(upload_grace_seconds=0.3, min_upload_bytes_per_second=1e6)
    async with running_front(limits=limits) as front:
        refused = await front.refusal(messages=case_messages()[:3])
        assert (refused.code, refused.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "UPLOAD_TOO_SLOW")
        assert front.runner.jobs == []


async def test_a_storm_of_tiny_chunks_is_ended() -> None:
    async with running_front(limits=Limits(max_chunks=5)) as front:
        refused = await front.refusal(messages=case_messages(chunk_bytes=10))
        assert (refused.code, refused.reason) == (EXHAUSTED, "TOO_MANY_CHUNKS")


async def test_random_messages_never_harm_the_server() -> None:
    rng = np.random.default_rng(7)
    good = [spec_message(good_spec()), *case_messages()]
    async with running_front() as front:
        for _ in range(30):
            messages = list(good)
            place = int(rng.integers(len(messages)))
            spoilt = bytearray(messages[place])
            for _ in range(int(rng.integers(1, 4))):
                spoilt[int(rng.integers(len(spoilt)))] = int(rng.integers(256))
            messages[place] = bytes(spoilt)
            ended = await front.refusal_of(messages, close=True)
            assert ended.code is not grpc.StatusCode.INTERNAL
            assert ended.code is not grpc.StatusCode.UNKNOWN
        assert (await front.explain())[-1].WhichOneof("event") == "summary"


async def test_a_message_that_declares_a_gigabyte_and_drips_is_not_waited_for() -> None:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/voxplain.v1.ExplainService/Explain",
        ":authority": "x",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    head = b"".join(
        b"\x00" + bytes([len(each)]) + each.encode() if number % 2 == 0 else bytes([len(each)]) + each.encode()
        for pair in fields.items()
        for number, each in enumerate(pair)
    )

    def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
        return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body

    declared = b"\x00" + (1 << 30).to_bytes(4, "big") + b"drip"
    async with running_front() as front, asyncio.timeout(10):
        host, port = front.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        writer.write(frame(1, 4, 1, head) + frame(0, 0, 1, declared))
        ended = False
        while not ended:
            header = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(header[:3], "big"))
            stream = int.from_bytes(header[5:], "big")
            ended = stream == 1 and (header[3] == 3 or (header[3] == 1 and bool(header[4] & 1)))
        writer.close()
        await writer.wait_closed()
        assert (await front.explain())[-1].WhichOneof("event") == "summary"
