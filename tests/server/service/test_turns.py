"""One turn in each round of the event loop, in the order in which they were asked for."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from voxplain_server.service.loop_watch import EVERY_SECONDS, watch_loop
from voxplain_server.service.turns import Turns


async def test_whoever_is_alone_does_not_wait() -> None:
    turns, rounds = Turns(), 0

    def count() -> None:
        nonlocal rounds
        rounds += 1

    asyncio.get_running_loop().call_soon(count)
    await turns.take()
    assert rounds == 0


async def test_others_are_heard_between_two_turns() -> None:
    turns, heard, loop = Turns(), list[str](), asyncio.get_running_loop()

    async def work(name: str) -> None:
        for _ in range(3):
            await turns.take()
            heard.append(name)
            loop.call_soon(heard.append, ".")
            await asyncio.sleep(0)

    await asyncio.gather(*(work(name) for name in "abcd"))
    assert "".join(each for each in heard if each != ".") == "abcd" * 3
    assert not any(one != "." and other != "." for one, other in pairwise(heard)), heard


async def test_who_is_cancelled_while_waiting_holds_up_nobody() -> None:
    turns, done = Turns(), list[int]()

    async def work(number: int) -> None:
        await turns.take()
        done.append(number)

    async with asyncio.timeout(10):
        tasks = [asyncio.create_task(work(number)) for number in range(5)]
        await asyncio.sleep(0)
        for number in (1, 2, 4):
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await turns.take()
    assert done == [0, 3]


async def test_a_loop_that_was_held_up_is_told_to_be_late() -> None:
    told = list[float]()
    watching = asyncio.create_task(watch_loop(told.append))
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    until = loop.time() + 3 * EVERY_SECONDS
    while loop.time() < until:
        pass
    while not told:
        await asyncio.sleep(0.01)
    watching.cancel()
    assert told[0] >= 1.9 * EVERY_SECONDS
