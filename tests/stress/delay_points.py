"""Twelve places at which a call is held still, so that its client leaves exactly there.

Nothing in the product knows of them: each wraps one method of it for the time of a test, and the wrapper waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import grpc.aio
from voxplain import wire
from voxplain.v1 import explain_pb2, method_pb2
from voxplain_server.service import explain as explain_module
from voxplain_server.service.receive import Upload
from voxplain_server.service.send import Outlet
from voxplain_server.workers.call import Call
from voxplain_server.workers.outbox import Outbox
from voxplain_server.workers.pool import WorkerPool

from tests.bundles import TinyBundle
from tests.oracle import settle
from tests.server.service.front import Front

Holds = Callable[..., bool]


@dataclass(slots=True)
class Gate:
    """Where a call is held: `reached` is set when it has come, and it never goes on."""

    reached: asyncio.Event

    async def hold(self) -> None:
        """Wait until cancelled."""
        self.reached.set()
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class DelayPoint:
    """One place.

    Attributes:
        name: in words.
        owner, attribute: the coroutine function that is wrapped; None: the client itself stops sending there.
        holds: whether a call with these arguments is held; the first is `self`.
        sent: how much the client sends: "nothing", "spec", "half" or "all".
        busy: whether another call holds the only worker meanwhile.
        after: whether the function itself runs before the hold.
    """

    name: str
    owner: object = None
    attribute: str = ""
    holds: Holds = lambda *_: True
    sent: str = "all"
    busy: bool = False
    after: bool = False


def _is(event: str) -> Holds:
    return lambda _, response: response.WhichOneof("event") == event


POINTS = (
    DelayPoint("the spec is awaited", sent="nothing"),
    DelayPoint("the spec has come and is not checked", explain_module, "read_spec", sent="spec", after=True),
    DelayPoint("Accepted is on its way", Outlet, "send", _is("accepted"), sent="spec"),
    DelayPoint("half of the bytes are there", sent="half"),
    DelayPoint("all bytes are there and the compute is not asked", Upload, "receive", after=True),
    DelayPoint("the call waits for a worker", busy=True),
    DelayPoint("the worker has answered and that is not booked", Call, "_listen", lambda *given: given[2].HasField("answered")),
    DelayPoint("the prediction is on its way", Outlet, "send", _is("prediction")),
    DelayPoint(
        "a block is done and not booked",
        Call,
        "_listen",
        lambda *given: given[2].HasField("block_done"),
    ),
    DelayPoint("a map waits for its reader", Outbox, "next", lambda outbox: outbox._maps > 0),
    DelayPoint("a map is announced and not sent", Outlet, "send", _is("map"), after=True),
    DelayPoint("the record is on its way", Outlet, "send", _is("summary")),
)


async def leave_at(point: DelayPoint, front: Front, pool: WorkerPool, bundle: TinyBundle, *, files: int) -> None:
    """Make a call, hold it at a point, let its client leave there, and see that all is given back and the next call served.

    Raises:
        AssertionError: something is held still, or the point was not reached.
    """
    gate = Gate(asyncio.Event())
    async with contextlib.AsyncExitStack() as stack:
        if point.busy:
            await stack.enter_async_context(_other_call(front, bundle))
        with _held(point, gate):
            call = front.open()
            sending = asyncio.create_task(_send(call, bundle, point.sent))
            async with asyncio.timeout(60):
                await _reached(point, gate, front, pool)
            call.cancel()
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError):
                await sending
            if point.busy:
                async with asyncio.timeout(20):
                    while front.ledger.held["handlers"] > 1:
                        await asyncio.sleep(0.002)
            else:
                await settle(front.ledger, files=files)
    await settle(front.ledger, files=files)


async def serve_one(front: Front, bundle: TinyBundle) -> list[str]:
    """One call from end to end; the kinds of its events."""
    call = front.open()
    sending = asyncio.create_task(_send(call, bundle, "all"))
    kinds = [str(explain_pb2.ExplainResponse.FromString(message).WhichOneof("event")) async for message in call]
    await sending
    return kinds


async def _reached(point: DelayPoint, gate: Gate, front: Front, pool: WorkerPool) -> None:
    if point.owner is not None:
        await gate.reached.wait()
        return
    calls = 2 if point.busy else 1
    while True:
        held = front.ledger.held
        there = {
            "nothing": held["handlers"] == 1,
            "half": held["case_files"] == 1,
            "all": held["handlers"] == calls and pool.queue_length == 1,
        }
        if there[point.sent]:
            return
        await asyncio.sleep(0.002)


@contextmanager
def _held(point: DelayPoint, gate: Gate) -> Iterator[None]:
    if point.owner is None:
        yield
        return
    original = getattr(point.owner, point.attribute)

    async def held(*arguments: Any, **named: Any) -> Any:
        if not point.holds(*arguments):
            return await original(*arguments, **named)
        if point.after:
            await original(*arguments, **named)
        await gate.hold()
        if not point.after:
            await original(*arguments, **named)

    with mock.patch.object(point.owner, point.attribute, held):
        yield


@contextlib.asynccontextmanager
async def _other_call(front: Front, bundle: TinyBundle) -> AsyncIterator[None]:
    """A call that has the worker until the block ends."""
    call = front.open()
    await call.write(_spec(bundle, window=1))
    for message in _chunks(bundle):
        await call.write(message)
    async for message in call:
        if explain_pb2.ExplainResponse.FromString(message).HasField("prediction"):
            break
    try:
        yield
    finally:
        call.cancel()


async def _send(call: grpc.aio.StreamStreamCall[bytes, bytes], bundle: TinyBundle, what: str) -> None:
    if what == "nothing":
        await call.wait_for_connection()
        return
    await call.write(_spec(bundle, window=6))
    chunks = _chunks(bundle) if what in ("half", "all") else []
    for message in chunks[: len(chunks) // 2] if what == "half" else chunks:
        await call.write(message)


def _spec(bundle: TinyBundle, *, window: int) -> bytes:
    spec = explain_pb2.ExplainSpec(
        model=bundle.name,
        tensors=bundle.headers(),
        methods=[method_pb2.Method(occlusion=method_pb2.Occlusion(window=[window], stride=[max(window - 1, 1)]))],
    )
    return explain_pb2.ExplainRequest(spec=spec).SerializeToString()


def _chunks(bundle: TinyBundle) -> list[bytes]:
    return [
        message
        for name, voxels in bundle.volumes().items()
        for message in wire.encode_chunks(name, wire.array_bytes(voxels), chunk_bytes=2000)
    ]
