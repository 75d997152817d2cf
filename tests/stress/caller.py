"""Calls as a plain gRPC client makes them, from threads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from voxplain import wire
from voxplain.v1 import explain_pb2, method_pb2

from tests.bundles import TinyBundle
from tests.oracle import settle_server
from tests.serving import RunningServer

EXPLAIN = "/voxplain.v1.ExplainService/Explain"
Call = Any
"""grpc's, which has no public type."""


@dataclass(slots=True)
class Told:
    """What a call brought.

    Attributes:
        kinds: of its events, in their order.
        maps: (method, quantity, modalities) -> digest of the bytes, of final maps.
        results: by method key.
        record: None where it did not come.
        code, reason: how it ended; the reason is empty where it ended well.
        retry_s: what the server asked to wait.
    """

    kinds: list[str] = field(default_factory=list)
    maps: dict[tuple[str, int, tuple[str, ...]], str] = field(default_factory=dict)
    results: dict[str, explain_pb2.MethodResult] = field(default_factory=dict)
    record: explain_pb2.ExplanationRecord | None = None
    checkpoint: bytes = b""
    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""
    retry_s: float | None = None


def case_of(
    bundle: TinyBundle,
    methods: Sequence[method_pb2.Method],
    *,
    volumes: Mapping[str, npt.NDArray[np.float32]] | None = None,
    **spec: Any,
) -> list[bytes]:
    """The messages of a call."""
    asked = explain_pb2.ExplainSpec(model=bundle.name, tensors=bundle.headers(), methods=methods, **spec)
    arrays = bundle.volumes() if volumes is None else volumes
    if volumes is not None:
        for tensor in asked.tensors:
            del tensor.shape[:]
            tensor.shape.extend(volumes[tensor.modality].shape)
    first = explain_pb2.ExplainRequest(spec=asked).SerializeToString()
    return [first, *(each for name, array in arrays.items() for each in wire.encode_chunks(name, wire.array_bytes(array)))]


def begin(channel: grpc.Channel, messages: Sequence[bytes], *, timeout_s: float | None = None) -> Call:
    """Open a call and send its messages from a thread of gRPC's."""
    method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(EXPLAIN)
    return method(iter(messages), timeout=timeout_s)


def finish(call: Call, *, on_event: Callable[[explain_pb2.ExplainResponse], None] = lambda event: None) -> Told:
    """Read a call to its end, however it ends."""
    told, place, left = Told(), None, 0
    digest = hashlib.sha256()
    try:
        for message in call:
            event = explain_pb2.ExplainResponse.FromString(message)
            on_event(event)
            kind = event.WhichOneof("event") or ""
            told.kinds.append(kind)
            if kind == "map":
                place = (event.map.method_key, int(event.map.quantity), tuple(event.map.modalities))
                left, digest = event.map.size_bytes if not event.map.snapshot else -1, hashlib.sha256()
            elif kind == "chunk" and place is not None and left > 0:
                digest.update(event.chunk.data)
                left -= len(event.chunk.data)
                if left == 0:
                    told.maps[place] = digest.hexdigest()
            elif kind == "progress":
                told.checkpoint = event.progress.checkpoint or told.checkpoint
            elif kind == "method_result":
                told.results[event.method_result.method_key] = event.method_result
            elif kind == "summary":
                told.record = event.summary.record
    except grpc.RpcError:
        told.code, told.reason, told.retry_s = _end_of(call)
    return told


def _end_of(call: Call) -> tuple[grpc.StatusCode, str, float | None]:
    reason, retry = "", None
    try:
        status = rpc_status.from_call(call)
    except ValueError:
        # The client left while the server's status came: the call has the code of the one and the details of the other.
        status = None
    for packed in status.details if status is not None else ():
        info, delay = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if packed.Unpack(info):
            reason = info.reason
        elif packed.Unpack(delay):
            retry = delay.retry_delay.ToNanoseconds() / 1e9
    return call.code(), reason, retry


def warm_up(server: RunningServer, bundle: TinyBundle) -> None:
    """One whole call, so that the worker has imported what it needs and holds the model."""
    with grpc.insecure_channel(server.address) as channel:
        gradient = method_pb2.Method(gradient=method_pb2.Gradient())
        told = finish(begin(channel, case_of(bundle, [occlusion(6, 5), gradient]), timeout_s=120))
    assert told.kinds[-1:] == ["summary"], (told.code, told.reason)
    settle_server(server.metrics_url, server.pid)


def occlusion(window: int, stride: int, key: str = "") -> method_pb2.Method:
    """The method on which most rows rest: its blocks are many and small."""
    return method_pb2.Method(key=key, occlusion=method_pb2.Occlusion(window=[window], stride=[stride]))
