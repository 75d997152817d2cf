"""What a slow reader sees."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from voxplain.v1 import explain_pb2
from voxplain_server.workers.job import MapReady
from voxplain_server.workers.memory import create_memory
from voxplain_server.workers.outbox import MAX_WAITING_MAPS, Outbox


def progress(done: int, checkpoint: bytes = b"") -> explain_pb2.Progress:
    return explain_pb2.Progress(evaluations_done=done, checkpoint=checkpoint)


def ready(*, snapshot: bool = False) -> MapReady:
    return MapReady(header=explain_pb2.Map(snapshot=snapshot), memory=create_memory(1), sha256="")


async def test_an_unread_progress_is_replaced_but_its_checkpoint_is_kept() -> None:
    outbox = Outbox()
    outbox.tell(progress(1, b"saved"))
    outbox.tell(progress(2))
    outbox.end()
    assert await outbox.next() == progress(2, b"saved")
    assert await outbox.next() is None


async def test_results_are_never_replaced() -> None:
    outbox = Outbox()
    await outbox.deliver(explain_pb2.MethodResult(method_key="a"))
    outbox.tell(progress(1))
    await outbox.deliver(explain_pb2.MethodResult(method_key="b"))
    outbox.end()
    assert [type(await outbox.next()).__name__ for _ in range(4)] == ["MethodResult", "Progress", "MethodResult", "NoneType"]


async def test_the_reader_waits_for_what_comes_later() -> None:
    outbox = Outbox()
    reading = asyncio.create_task(outbox.next())
    await asyncio.sleep(0)
    outbox.tell(progress(1))
    assert await reading == progress(1)


async def test_it_is_known_when_a_snapshot_left_and_not_when_it_was_made() -> None:
    outbox, loop = Outbox(), asyncio.get_running_loop()
    await outbox.deliver(ready(snapshot=True))
    await outbox.deliver(ready())
    assert outbox.snapshot_left_at == 0.0
    before = loop.time()
    for _ in range(2):
        left = await outbox.next()
        assert isinstance(left, MapReady)
        os.close(left.memory)
        assert before <= outbox.snapshot_left_at <= loop.time()
        before = outbox.snapshot_left_at


async def test_too_many_unread_maps_make_the_call_wait() -> None:
    outbox = Outbox()
    for _ in range(MAX_WAITING_MAPS):
        await outbox.deliver(ready())
    one_more = asyncio.create_task(outbox.deliver(ready()))
    await asyncio.sleep(0.01)
    assert not one_more.done()
    first = await outbox.next()
    assert isinstance(first, MapReady)
    os.close(first.memory)
    await one_more
    outbox.close()


async def test_a_reader_that_leaves_closes_the_memory_of_what_it_has_not_read() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    outbox = Outbox()
    await outbox.deliver(ready())
    await outbox.deliver(ready(snapshot=True))
    outbox.close()
    await outbox.deliver(ready())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("snapshot", [True, False])
async def test_it_knows_whether_a_snapshot_is_unread(snapshot: bool) -> None:
    outbox = Outbox()
    await outbox.deliver(ready(snapshot=snapshot))
    assert outbox.snapshot_waits == snapshot
    outbox.close()
