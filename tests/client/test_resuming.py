"""A lost connection resumes by itself, from the last checkpoint, and tells nothing twice."""

from __future__ import annotations

import socket

import grpc
import numpy as np
import pytest
from google.rpc import status_pb2
from voxplain.errors import CheckpointRefused, InvalidSpec, LimitExceeded, ServerUnavailable, VoxplainError
from voxplain.v1 import explain_pb2
from voxplain.volume import Volume
from voxplain_client import AsyncClient, Client, MapReceived, Resuming, RetryPolicy
from voxplain_client.events import Event

from tests.client.contract_server import CHECKPOINT, Break, ContractServer, status_of
from tests.client.relay import relay

METHODS = ["gradient", "occlusion"]

# With two modalities the events of a call are 0 Accepted, 1 Prediction, then for each method: Progress, two maps, result.
AFTER_FIRST_METHOD = 6
IN_SECOND_METHOD = 8


def run(client: Client, volumes: dict[str, Volume]) -> list[Event]:
    """All events of one explanation."""
    return list(client.explain(model="fake", volumes=volumes, methods=METHODS))


def told(events: list[Event]) -> list[str]:
    """Events by name, progress left out."""
    names = []
    for event in events:
        if isinstance(event, MapReceived):
            names.append(f"map {event.header.method_key} {event.header.modalities[0]}")
        elif isinstance(event, explain_pb2.MethodResult):
            names.append(f"result {event.method_key}")
        elif not isinstance(event, explain_pb2.Progress):
            names.append(type(event).__name__)
    return names


WHOLE = [
    "Accepted",
    "Prediction",
    "map gradient t1",
    "map gradient t1c",
    "result gradient",
    "map occlusion t1",
    "map occlusion t1c",
    "result occlusion",
    "ExplanationRecord",
]


@pytest.mark.parametrize(
    "broken",
    [
        Break(after=IN_SECOND_METHOD),
        Break(after=IN_SECOND_METHOD, code=grpc.StatusCode.INTERNAL, text="Received RST_STREAM with error code 2"),
        Break(after=IN_SECOND_METHOD, code=grpc.StatusCode.CANCELLED, text="Received RST_STREAM with error code 8"),
        Break(after=IN_SECOND_METHOD, silently=True),
        Break(after=IN_SECOND_METHOD, status=status_of(grpc.StatusCode.UNAVAILABLE, "WORKERS_LOST", "try again")),
    ],
    ids=["connection lost", "reset", "reset by a proxy", "stream ended", "workers lost"],
)
def test_a_broken_call_goes_on_from_its_checkpoint(broken: Break, volumes: dict[str, Volume], hasty: RetryPolicy) -> None:
    with ContractServer(breaks=[broken]) as server, Client(server.address, policy=hasty) as client:
        events = run(client, volumes)
    first, second = server.specs
    assert first.checkpoint == b""
    assert second.checkpoint == CHECKPOINT + bytes([1])
    assert second.version == "1"
    assert second.request_id == first.request_id
    assert second.tensors == first.tensors
    names = told(events)
    assert names.count("Resuming") == 1
    assert [name for name in names if name != "Resuming"] == WHOLE


async def test_the_async_client_resumes_too(volumes: dict[str, Volume], hasty: RetryPolicy) -> None:
    with ContractServer(breaks=[Break(after=IN_SECOND_METHOD)]) as server:
        async with AsyncClient(server.address, policy=hasty) as client:
            events = [event async for event in client.explain(model="fake", volumes=volumes, methods=METHODS)]
    assert [name for name in told(events) if name != "Resuming"] == WHOLE
    assert server.specs[1].checkpoint == CHECKPOINT + bytes([1])


def test_a_result_collects_over_both_calls(volumes: dict[str, Volume], hasty: RetryPolicy) -> None:
    with ContractServer(breaks=[Break(after=AFTER_FIRST_METHOD)]) as server, Client(server.address, policy=hasty) as client:
        result = client.explain(model="fake", volumes=volumes, methods=METHODS).result()
    for key in METHODS:
        np.testing.assert_array_equal(result.maps[key]["t1c"].array, volumes["t1c"].voxels * 2)
    assert result.record.explanation_id == "e2"


def test_attempts_without_any_advance_are_bounded(volumes: dict[str, Volume]) -> None:
    policy = RetryPolicy(attempts=3, first_wait_s=0.0)
    with (
        ContractServer(breaks=[Break(after=2) for _ in range(9)]) as server,
        Client(server.address, policy=policy) as client,
        pytest.raises(ServerUnavailable),
    ):
        run(client, volumes)
    assert len(server.specs) == 4


def test_every_advance_gives_new_attempts(volumes: dict[str, Volume]) -> None:
    policy = RetryPolicy(attempts=1, first_wait_s=0.0)
    breaks = [Break(after=3), Break(after=AFTER_FIRST_METHOD), Break(after=IN_SECOND_METHOD)]
    with ContractServer(breaks=breaks) as server, Client(server.address, policy=policy) as client:
        events = run(client, volumes)
    assert [name for name in told(events) if name != "Resuming"] == WHOLE


def test_a_refused_checkpoint_starts_over_once(volumes: dict[str, Volume], hasty: RetryPolicy) -> None:
    refused = Break(after=0, status=status_of(grpc.StatusCode.ABORTED, "CHECKPOINT_INVALID", "of another request"))
    with (
        ContractServer(breaks=[Break(after=IN_SECOND_METHOD), refused]) as server,
        Client(server.address, policy=hasty) as client,
    ):
        events = run(client, volumes)
    assert [spec.checkpoint for spec in server.specs] == [b"", CHECKPOINT + bytes([1]), b""]
    resumings = [event for event in events if isinstance(event, Resuming)]
    assert [event.from_checkpoint for event in resumings] == [True, False]
    assert [name for name in told(events) if name != "Resuming"] == WHOLE


def test_a_checkpoint_refused_twice_is_a_fault(volumes: dict[str, Volume], hasty: RetryPolicy) -> None:
    refused = Break(after=0, status=status_of(grpc.StatusCode.ABORTED, "CHECKPOINT_INVALID", "of another request"))
    with (
        ContractServer(breaks=[refused, refused]) as server,
        Client(server.address, policy=hasty) as client,
        pytest.raises(CheckpointRefused),
    ):
        client.explain(model="fake", volumes=volumes, methods=METHODS, checkpoint=b"old").result()
    assert len(server.specs) == 2


def test_a_full_queue_is_waited_for_as_long_as_the_server_says(volumes: dict[str, Volume], hasty: RetryPolicy) -> None:
    full = Break(after=0, status=status_of(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "full", retry_s=0.05))
    with ContractServer(breaks=[full]) as server, Client(server.address, policy=hasty) as client:
        events = run(client, volumes)
    (resuming,) = [event for event in events if isinstance(event, Resuming)]
    assert resuming.wait_s == pytest.approx(0.05)
    assert resuming.fault.reason == "QUEUE_FULL"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (status_of(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE", "m"), LimitExceeded),
        (status_of(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "m", retry_s=0.9), LimitExceeded),
        (status_of(grpc.StatusCode.INVALID_ARGUMENT, "SHAPE", "m"), InvalidSpec),
    ],
    ids=["a limit", "a wait beyond all patience", "a wrong spec"],
)
def test_what_trying_again_does_not_help_is_raised_at_once(
    status: status_pb2.Status, error: type[VoxplainError], volumes: dict[str, Volume]
) -> None:
    policy = RetryPolicy(first_wait_s=0.0, patience_s=0.5)
    with (
        ContractServer(breaks=[Break(after=0, status=status)]) as server,
        Client(server.address, policy=policy) as client,
        pytest.raises(error),
    ):
        run(client, volumes)
    assert len(server.specs) == 1


def test_a_drained_server_is_followed_by_the_next_one(volumes: dict[str, Volume], hasty: RetryPolicy) -> None:
    with (
        ContractServer(outcomes={"occlusion": explain_pb2.OUTCOME_DRAINED}) as server,
        Client(server.address, policy=hasty) as client,
    ):
        events: list[Event] = []
        for event in client.explain(model="fake", volumes=volumes, methods=METHODS):
            events.append(event)
            if isinstance(event, Resuming):
                server.outcomes.clear()
    results = [event for event in events if isinstance(event, explain_pb2.MethodResult)]
    assert [(one.method_key, one.outcome) for one in results] == [
        ("gradient", explain_pb2.OUTCOME_COMPLETED),
        ("occlusion", explain_pb2.OUTCOME_DRAINED),
        ("occlusion", explain_pb2.OUTCOME_COMPLETED),
    ]
    assert told(events).count("ExplanationRecord") == 1


def test_nobody_at_the_address_is_told_soon(volumes: dict[str, Volume], hasty: RetryPolicy) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with Client(f"127.0.0.1:{free.getsockname()[1]}", policy=hasty) as client, pytest.raises(ServerUnavailable) as refused:
            run(client, volumes)
    assert refused.value.reason == "CONNECTION_LOST"


def test_a_connection_that_is_really_cut_is_made_again(volumes: dict[str, Volume], hasty: RetryPolicy) -> None:
    with ContractServer(wait_before_maps=True) as server:
        for address, cut in relay(server.port):
            with Client(address, policy=hasty) as client:
                events: list[Event] = []
                for event in client.explain(model="fake", volumes=volumes, methods=METHODS):
                    events.append(event)
                    if isinstance(event, explain_pb2.Prediction):
                        server.wait_before_maps = False
                        cut()
    assert len(server.specs) == 2
    assert [name for name in told(events) if name != "Resuming"] == WHOLE
