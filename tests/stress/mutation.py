"""Uploads that are spoiled in every way that a careless or hostile client can think of, and what a plain reading gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError
from voxplain import wire
from voxplain.v1 import explain_pb2, tensor_pb2

MAX_TENSORS = 4
MAX_BYTES = 240
_KINDS = ("drop", "double", "swap", "shift", "flip data", "flip byte", "rename", "cut", "grow", "noise", "spec", "uncheck")


@dataclass(frozen=True, slots=True)
class Upload:
    """One case on its way.

    Attributes:
        headers: the tensors that were declared.
        case: their bytes.
        messages: what is sent, spoiled or not.
    """

    headers: tuple[tensor_pb2.Tensor, ...]
    case: dict[str, bytes]
    messages: tuple[bytes, ...]


def make_upload(rng: np.random.Generator) -> Upload:
    """A random case, cut and interleaved at random, and spoiled in up to three places."""
    case = {f"t{number}": rng.bytes(int(rng.integers(1, MAX_BYTES))) for number in range(int(rng.integers(1, MAX_TENSORS + 1)))}
    headers = tuple(
        tensor_pb2.Tensor(
            id=key,
            role=tensor_pb2.TENSOR_ROLE_VOLUME,
            modality=key,
            data_type=tensor_pb2.DATA_TYPE_UINT8,
            shape=[len(data)],
        )
        for key, data in case.items()
    )
    streams = [list(wire.encode_chunks(key, data, chunk_bytes=int(rng.integers(20, 200)))) for key, data in case.items()]
    messages = []
    while any(streams):
        alive = [stream for stream in streams if stream]
        messages.append(alive[int(rng.integers(len(alive)))].pop(0))
    for _ in range(int(rng.integers(0, 4))):
        _spoil(messages, rng)
    return Upload(headers, case, tuple(messages))


def read_plainly(upload: Upload) -> dict[str, bytes] | None:
    """What the messages mean, read by protobuf alone and put together byte by byte; None: they must be refused."""
    found: dict[str, bytes] = dict.fromkeys(upload.case, b"")
    sizes = {key: len(data) for key, data in upload.case.items()}
    for message in upload.messages:
        if found_all(found, sizes):
            # A message after the last byte is one too many, whatever it says.
            return None
        try:
            request = explain_pb2.ExplainRequest.FromString(message)
        except DecodeError:
            return None
        chunk = request.chunk
        if request.WhichOneof("message") != "chunk" or chunk.tensor_id not in found or not chunk.data:
            return None
        held = found[chunk.tensor_id]
        if chunk.offset_bytes != len(held) or len(held) + len(chunk.data) > sizes[chunk.tensor_id]:
            return None
        if chunk.HasField("crc32c") and wire.checksum(chunk.data) != chunk.crc32c:
            return None
        found[chunk.tensor_id] = held + chunk.data
    return found if found_all(found, sizes) else None


def found_all(found: dict[str, bytes], sizes: dict[str, int]) -> bool:
    """Whether every byte is there."""
    return all(len(found[key]) == size for key, size in sizes.items())


def _spoil(messages: list[bytes], rng: np.random.Generator) -> None:
    if not messages:
        return
    place, other = (int(rng.integers(len(messages))) for _ in range(2))
    victim = explain_pb2.ExplainRequest()
    kind = _KINDS[int(rng.integers(len(_KINDS)))]
    try:
        victim.ParseFromString(messages[place])
    except DecodeError:
        kind = "noise"
    chunk = victim.chunk
    if kind == "drop":
        del messages[place]
        return
    if kind == "double":
        messages.insert(other, messages[place])
        return
    if kind == "swap":
        messages[place], messages[other] = messages[other], messages[place]
        return
    if kind in ("flip byte", "noise"):
        raw = bytearray(messages[place] or b"\x00")
        raw[int(rng.integers(len(raw)))] ^= int(rng.integers(1, 256))
        messages[place] = bytes(raw) if kind == "flip byte" else rng.bytes(int(rng.integers(0, 40)))
        return
    if kind == "shift":
        chunk.offset_bytes = (
            min(max(0, chunk.offset_bytes + int(rng.integers(-3, 4))), 2**63) if rng.random() < 0.8 else 2**64 - 1
        )
    elif kind == "flip data" and chunk.data:
        data = bytearray(chunk.data)
        data[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        chunk.data = bytes(data)
    elif kind == "rename":
        chunk.tensor_id = ("t0", "t1", "nobody", "")[int(rng.integers(4))]
    elif kind == "cut":
        chunk.data = chunk.data[: int(rng.integers(len(chunk.data) + 1))]
    elif kind == "grow":
        chunk.data += rng.bytes(int(rng.integers(1, 60)))
    elif kind == "spec":
        victim.spec.model = "again"
    elif kind == "uncheck":
        chunk.ClearField("crc32c")
    messages[place] = victim.SerializeToString()
