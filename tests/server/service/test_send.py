"""How often a call tells where it stands, on a clock that tests hold in their hands."""

from __future__ import annotations

import asyncio
import selectors
from io import StringIO
from itertools import pairwise
from typing import Any, cast

import grpc.aio
import pytest
from voxplain.v1 import explain_pb2
from voxplain_server.observe.log import Log
from voxplain_server.observe.metrics import Metrics
from voxplain_server.observe.watch import Watch
from voxplain_server.service.receive import Context
from voxplain_server.service.send import Outlet


class LeapingLoop(asyncio.SelectorEventLoop):
    """Never waits: its clock leaps to whatever comes next."""

    def __init__(self) -> None:
        self.now = 1000.0
        selector = selectors.SelectSelector()
        select = selector.select

        def leap(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            self.now += timeout or 0.0
            return select(0)

        selector.select = leap  # type: ignore[method-assign]
        super().__init__(selector)

    def time(self) -> float:
        return self.now


class Reader:
    """A client that notes when a message came."""

    def __init__(self) -> None:
        self.told: list[tuple[float, explain_pb2.Progress]] = []

    async def write(self, message: bytes) -> None:
        progress = explain_pb2.ExplainResponse.FromString(message).progress
        self.told.append((asyncio.get_running_loop().time(), progress))


def outlet_of(reader: Reader) -> Outlet:
    def freshen(progress: explain_pb2.Progress) -> None:
        progress.bytes_total = 7

    watch = Watch(Metrics(), Log(StringIO()))
    return Outlet(cast("Context", cast("Any", reader)), stall_seconds=30.0, observer=watch, freshen=freshen)


@pytest.mark.parametrize("pause", [0.05, 0.3, 0.65, 0.75, 0.9, 30.0])
def test_progress_is_never_more_than_a_second_apart(pause: float) -> None:
    """Whatever the rhythm in which the runner tells."""
    reader = Reader()

    async def tell_for_a_while() -> None:
        outlet = outlet_of(reader)
        telling = asyncio.create_task(outlet.keep_telling())
        end = asyncio.get_running_loop().time() + 60.0
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(pause)
            await outlet.send_progress(explain_pb2.Progress(evaluations_done=3))
        telling.cancel()

    loop = LeapingLoop()
    try:
        loop.run_until_complete(tell_for_a_while())
    finally:
        loop.close()
    times = [1000.0, *(time for time, _ in reader.told)]
    assert times[-1] >= 1060.0
    assert max(later - earlier for earlier, later in pairwise(times)) <= 0.95
    assert {progress.bytes_total for _, progress in reader.told} == {7}


class Departed:
    """A client who has left: gRPC fails the write under way before it cancels the call."""

    async def write(self, message: bytes) -> None:
        raise grpc.aio.InternalError


async def test_a_write_to_a_client_who_left_is_a_cancellation_and_no_fault() -> None:
    outlet = outlet_of(cast("Reader", Departed()))
    for _ in range(2):
        with pytest.raises(asyncio.CancelledError):
            await outlet.send(explain_pb2.ExplainResponse(prediction=explain_pb2.Prediction(score=1.0)))
