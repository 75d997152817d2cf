"""What happens around a driver while a scenario runs."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from voxplain.v1 import explain_pb2, tensor_pb2

from tests.client.relay import relay
from tests.serving import RunningServer

PLACES = 2
"""Calls that the server admits: it runs with one worker and a queue of one."""

SERVER_ARGUMENTS = ("--workers", "1", "--threads-per-worker", "1", "--engine", "onnxruntime", "--queue-length", "1")
EXPLAIN = "/voxplain.v1.ExplainService/Explain"

Watch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a driver dials, and who looks at its events.

    Attributes:
        address: HOST:PORT.
        watch: called with every event as it comes.
    """

    address: str
    watch: Watch


@contextmanager
def surroundings(trouble: str, server: RunningServer) -> Iterator[Surroundings]:
    """Make the trouble that a scenario names."""
    if trouble == "cut-at-checkpoint":
        for address, cut in relay(int(server.address.rpartition(":")[2])):
            yield Surroundings(address, _once("checkpoint", cut))
    elif trouble == "full-queue":
        with _full_queue(server.address) as leave:
            yield Surroundings(server.address, _once("event", leave, value="resuming"))
    else:
        yield Surroundings(server.address, lambda event: None)


def calls_in_flight(server: RunningServer) -> int:
    """Calls that are admitted and have not ended."""
    with urllib.request.urlopen(server.metrics_url, timeout=5) as page:
        lines = page.read().decode().splitlines()
    return next(int(float(line.split()[1])) for line in lines if line.startswith("voxplain_inflight_explanations "))


def _once(field: str, act: Callable[[], None], *, value: object = True) -> Watch:
    done = threading.Event()

    def watch(event: dict[str, Any]) -> None:
        if event.get(field) == value and not done.is_set():
            done.set()
            act()

    return watch


@contextmanager
def _full_queue(address: str) -> Iterator[Callable[[], None]]:
    """Hold all places by calls that never send their bytes; yields what gives the places back."""
    header = tensor_pb2.Tensor(
        id="t1", role=tensor_pb2.TENSOR_ROLE_VOLUME, modality="t1", data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[12, 14, 10]
    )
    other = tensor_pb2.Tensor()
    other.CopyFrom(header)
    other.id = other.modality = "t1c"
    spec = explain_pb2.ExplainSpec(model="tiny-glioma", tensors=[header, other])
    spec.methods.add().gradient.SetInParent()
    message = explain_pb2.ExplainRequest(spec=spec).SerializeToString()
    released = threading.Event()

    def requests() -> Iterator[bytes]:
        yield message
        released.wait(60)

    with grpc.insecure_channel(address) as channel, ExitStack() as held:
        dial: Any = channel.stream_stream(EXPLAIN, request_serializer=None, response_deserializer=None)
        calls = [dial(requests()) for _ in range(PLACES)]

        def leave() -> None:
            released.set()
            for call in calls:
                call.cancel()

        held.callback(leave)
        for call in calls:
            next(iter(call))
        yield leave
