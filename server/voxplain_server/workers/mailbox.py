"""What reaches a call from outside, in the order in which it came."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass

from voxplain.worker.v1 import worker_pb2

from voxplain_server.workers.memory import close_all
from voxplain_server.workers.worker import Worker


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """A worker told something; the descriptors are the reader's to close."""

    worker: Worker
    event: worker_pb2.Event
    descriptors: list[int]


@dataclass(frozen=True, slots=True, eq=False)
class Lost:
    """A worker is gone."""

    worker: Worker


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """A worker has come."""

    worker: Worker
    lead: bool


class Mailbox:
    """A queue of mail; None is a nudge to look at everything anew.

    No asyncio.Queue: a reader that is cancelled while it gets an item can lose it, and with it the descriptors.
    """

    def __init__(self) -> None:
        self._mail: deque[Heard | Lost | Joined | None] = deque()
        self._came = asyncio.Event()

    def put(self, mail: Heard | Lost | Joined | None) -> None:
        """Put mail in; never waits."""
        self._mail.append(mail)
        self._came.set()

    async def next(self, timeout_s: float) -> Heard | Lost | Joined | None:
        """The next mail, or None when the time is over."""
        if not self._mail:
            self._came.clear()
            # Not asyncio.wait_for: before Python 3.12 it swallows a cancellation that comes at the same moment as the mail.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._came.wait()
        return self._mail.popleft() if self._mail else None

    def empty(self) -> list[Worker]:
        """Throw all mail away. Returns the workers that had come and were not seen."""
        joined = []
        while self._mail:
            mail = self._mail.popleft()
            if isinstance(mail, Heard):
                close_all(mail.descriptors)
            elif isinstance(mail, Joined):
                joined.append(mail.worker)
        return joined
