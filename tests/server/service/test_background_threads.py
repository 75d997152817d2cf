"""The front's own threads are all there from the start, and stay as many."""

from __future__ import annotations

import asyncio
import threading

from voxplain_server.service.background_threads import SPARE_THREADS, start_threads


def test_work_off_the_event_loop_starts_no_thread_that_was_not_there() -> None:
    async def count() -> list[int]:
        alone = threading.active_count()
        start_threads(3)
        counts = [threading.active_count() - alone]
        for _ in range(10):
            await asyncio.gather(*(asyncio.to_thread(sum, ()) for _ in range(20)))
            counts.append(threading.active_count() - alone)
        return counts

    before = threading.active_count()
    assert asyncio.run(count()) == [SPARE_THREADS + 3] * 11
    assert threading.active_count() == before
