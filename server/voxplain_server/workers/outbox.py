"""Events on their way from a call to whoever reads it: never late, never in the way of the compute, never without bound."""

from __future__ import annotations

import asyncio
from collections import deque

from voxplain.v1 import explain_pb2

from voxplain_server.workers.job import JobEvent, MapReady

MAX_WAITING_MAPS = 16
"""Final maps that may wait for a slow reader before the call pauses."""


class Outbox:
    """A queue that replaces what a slow reader need not see: an old Progress by a new one, an unread snapshot by the next.

    Final maps, results and the record are never dropped; `deliver` waits when too many maps wait.

    Attributes:
        snapshot_left_at: event-loop time at which the reader took the last map of a snapshot; 0: none yet.
    """

    def __init__(self) -> None:
        self._events: deque[JobEvent] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._maps = 0
        self.snapshot_left_at = 0.0
        self._closed = False
        self._ended = False

    @property
    def snapshot_waits(self) -> bool:
        """Whether a snapshot has not been read yet."""
        return any(isinstance(event, MapReady) and event.header.snapshot for event in self._events)

    def tell(self, progress: explain_pb2.Progress) -> None:
        """Put a Progress in the place of the one that waits, if any. A checkpoint that was not read yet is kept."""
        old = self._events[-1] if self._events else None
        if isinstance(old, explain_pb2.Progress):
            self._events.pop()
            if old.checkpoint and not progress.checkpoint:
                progress.checkpoint = old.checkpoint
        self._put(progress)

    async def deliver(self, event: JobEvent) -> None:
        """Put an event that must arrive; waits while too many final maps are unread."""
        if isinstance(event, MapReady):
            try:
                await self._room.wait()
            except asyncio.CancelledError:
                event.close()
                raise
            if self._closed:
                event.close()
                return
            self._maps += 1
            if self._maps >= MAX_WAITING_MAPS:
                self._room.clear()
        self._put(event)

    def end(self) -> None:
        """Nothing follows."""
        self._ended = True
        self._changed.set()

    def close(self) -> None:
        """The reader left: drop what waits and close its memory."""
        self._closed = True
        for event in self._events:
            if isinstance(event, MapReady):
                event.close()
        self._events.clear()
        self._room.set()

    async def next(self) -> JobEvent | None:
        """The next event, whenever it comes; None: nothing follows."""
        while not self._events:
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        event = self._events.popleft()
        if isinstance(event, MapReady):
            self._maps -= 1
            if event.header.snapshot:
                self.snapshot_left_at = asyncio.get_running_loop().time()
            self._room.set()
        return event

    def _put(self, event: JobEvent) -> None:
        if not self._closed:
            self._events.append(event)
            self._changed.set()
