"""How late the event loop of the front is: every call, and everything that a call does, waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

EVERY_SECONDS = 0.1


async def watch_loop(tell: Callable[[float], None]) -> None:
    """Ask to be woken again and again, until cancelled.

    Args:
        tell: called with the seconds by which it was too late.
    """
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY_SECONDS
        await asyncio.sleep(EVERY_SECONDS)
        tell(max(loop.time() - due, 0.0))
