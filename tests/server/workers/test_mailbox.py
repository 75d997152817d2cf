"""Mail comes in its order, and a reader that is told to stop stops."""

from __future__ import annotations

import asyncio

import pytest
from voxplain_server.workers.mailbox import Mailbox


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancellation_that_meets_the_mail_is_not_lost(turns: int) -> None:
    mailbox = Mailbox()
    reading = asyncio.create_task(mailbox.next(60.0))
    for _ in range(3):
        await asyncio.sleep(0)
    mailbox.put(None)
    for _ in range(turns):
        await asyncio.sleep(0)
    if reading.cancel():
        with pytest.raises(asyncio.CancelledError):
            await reading
    else:
        assert await reading is None


async def test_nothing_comes_when_the_time_is_over() -> None:
    assert await Mailbox().next(0.001) is None
