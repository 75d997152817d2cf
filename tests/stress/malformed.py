"""RPCs that no generated client would send, on the wire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from voxplain.v1 import catalog_pb2, explain_pb2

_CALLERS = 4
_SECONDS = 60.0
_CATALOG: dict[str, type[Message]] = {
    "ListModels": catalog_pb2.ListModelsRequest,
    "GetModel": catalog_pb2.GetModelRequest,
    "ListMethods": catalog_pb2.ListMethodsRequest,
    "EstimateExplanation": catalog_pb2.EstimateExplanationRequest,
}
_FORBIDDEN = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
_NUMBERS = (0, 1, 2, 7, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
_FLOATS = (0.0, -1.0, 1e-320, 1e308, float("nan"), float("inf"), 0.5)
_TEXTS = ("", "tiny-glioma", "t1", "\x00", "a/../b", "é" * 300, "x" * 5000, "1")

_T = TypeVar("_T")


@dataclass(slots=True)
class Outcome:
    """How many calls ended how.

    Attributes:
        codes: by status.
        forbidden: paths that ended with UNKNOWN or INTERNAL, and the number of the call, by which it can be repeated.
    """

    codes: Counter[str] = field(default_factory=Counter)
    forbidden: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rpc:
    """One call.

    Attributes:
        path: of the method.
        messages: raw bytes, each one message.
    """

    path: str
    messages: tuple[bytes, ...]


def make_rpc(rng: np.random.Generator, good: Sequence[bytes]) -> Rpc:
    """A call of some method with random, mutated or nonsensical messages.

    Args:
        rng: random numbers.
        good: the messages of a good Explain call, from which some are spoiled.
    """
    kind = rng.random()
    if kind < 0.05:
        return Rpc(f"/voxplain.v1.ExplainService/{_pick(rng, ('explain', 'Explain2', 'Explain/', '', 'é'))}", (b"",))
    if kind < 0.4:
        name = _pick(rng, tuple(_CATALOG))
        made = rng.bytes(int(rng.integers(0, 60))) if rng.random() < 0.3 else _filled(_CATALOG[name], rng)
        count = 1 if rng.random() < 0.9 else int(rng.integers(0, 3))
        return Rpc(f"/voxplain.v1.CatalogService/{name}", (_flipped(made, rng),) * count)
    path = "/voxplain.v1.ExplainService/Explain"
    if kind < 0.6:
        count = int(rng.integers(0, 4))
        return Rpc(path, tuple(_filled(explain_pb2.ExplainRequest, rng) for _ in range(count)))
    messages = list(good)
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(len(messages)))
        messages[place] = _flipped(messages[place], rng, always=True)
    if rng.random() < 0.3:
        messages = [messages[int(place)] for place in rng.permutation(len(messages))]
    return Rpc(path, tuple(messages[: int(rng.integers(1, len(messages) + 1))]))


def send_malformed(address: str, count: int, good: Sequence[bytes], *, seed: int) -> Outcome:
    """Send so many malformed calls."""
    outcome = Outcome()
    calls = [make_rpc(np.random.default_rng((seed, number)), good) for number in range(count)]
    with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(_CALLERS) as callers:
        for number, (rpc, code) in enumerate(zip(calls, callers.map(lambda each: _send(channel, each), calls), strict=True)):
            outcome.codes[code.name] += 1
            if code in _FORBIDDEN:
                outcome.forbidden.append(f"{rpc.path} #{number}: {code.name}")
    return outcome


def _send(channel: grpc.Channel, rpc: Rpc) -> grpc.StatusCode:
    method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(rpc.path.encode().decode("latin-1"))
    call = method(iter(rpc.messages), timeout=_SECONDS)
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        pass
    code: grpc.StatusCode = call.code()
    return code


def _filled(kind: type[Message], rng: np.random.Generator) -> bytes:
    message = kind()
    _fill(message, rng, depth=0)
    return message.SerializeToString()


def _fill(message: Message, rng: np.random.Generator, *, depth: int) -> None:
    for descriptor in message.DESCRIPTOR.fields:
        if rng.random() < 0.5 or depth > 5:
            continue
        count = int(rng.integers(1, 4)) if descriptor.is_repeated else 1
        for _ in range(count):
            if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
                below = getattr(message, descriptor.name)
                if not hasattr(below, "SetInParent") and not hasattr(below, "add"):
                    # A map.
                    continue
                below = below.add() if descriptor.is_repeated else below
                below.SetInParent()
                _fill(below, rng, depth=depth + 1)
                continue
            value = _value(descriptor, rng)
            try:
                if descriptor.is_repeated:
                    getattr(message, descriptor.name).append(value)
                else:
                    setattr(message, descriptor.name, value)
            except (ValueError, TypeError):
                # Out of the range of this type of field.
                continue


def _value(descriptor: Any, rng: np.random.Generator) -> object:
    if descriptor.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return _pick(rng, _FLOATS)
    if descriptor.type == FieldDescriptor.TYPE_STRING:
        return _pick(rng, _TEXTS)
    if descriptor.type == FieldDescriptor.TYPE_BYTES:
        return rng.bytes(int(rng.integers(0, 30)))
    if descriptor.type == FieldDescriptor.TYPE_BOOL:
        return bool(rng.integers(2))
    sign = -1 if rng.random() < 0.2 else 1
    return sign * int(_NUMBERS[int(rng.integers(len(_NUMBERS)))])


def _flipped(message: bytes, rng: np.random.Generator, *, always: bool = False) -> bytes:
    if not message or (not always and rng.random() < 0.5):
        return message
    spoilt = bytearray(message)
    for _ in range(int(rng.integers(1, 4))):
        spoilt[int(rng.integers(len(spoilt)))] = int(rng.integers(256))
    return bytes(spoilt)


def _pick(rng: np.random.Generator, values: Sequence[_T]) -> _T:
    return values[int(rng.integers(len(values)))]
