"""The front's side of one compute process: alive or gone, idle or leased to a call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from voxplain.worker.v1 import worker_pb2

from voxplain_server.workers.memory import close_all
from voxplain_server.workers.process import WorkerProcess, WorkerStart


class Holder(Protocol):
    """Whoever leases a worker."""

    def hear(self, worker: Worker, event: worker_pb2.Event, descriptors: list[int]) -> None:
        """An event came; its descriptors are the holder's to close."""

    def lose(self, worker: Worker) -> None:
        """The worker is gone; nothing more will come."""


class Worker:
    """A compute process that is leased to at most one call at a time.

    Args:
        start: how it is started.

    Attributes:
        ready: tells what the process computes with; raises ConnectionError if it ends before.
        gone: set when the process is gone or was condemned.
        loaded: digests of the models that it holds, the latest last.
        heard_at: event-loop time of its last event.
        condemned: whether the pool itself decided on its end.
        died_at_work: whether it was leased to a call when it went.
    """

    def __init__(self, start: WorkerStart) -> None:
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[worker_pb2.Ready] = self._loop.create_future()
        self.gone = asyncio.Event()
        self.loaded: list[str] = []
        self.heard_at = self._loop.time()
        self._holder: Holder | None = None
        self._call = 0
        self.condemned = False
        self.died_at_work = False
        self._closed: asyncio.Future[None] | None = None
        self._process = WorkerProcess(start, on_event=self._on_event, on_lost=self._on_lost)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def lease(self, call: int, holder: Holder) -> None:
        """Give the worker to a call: its events go to `holder` from now on."""
        self._call, self._holder = call, holder
        self.heard_at = self._loop.time()
        if self.gone.is_set():
            self._holder = None
            self._loop.call_soon(holder.lose, self)

    def send(self, command: worker_pb2.Command, descriptors: Sequence[int] = ()) -> None:
        """Send a command of the call that leases it; the descriptors stay the caller's."""
        command.call = self._call
        self._process.send(command, descriptors)

    def note_loaded(self, digest: str, *, most: int) -> None:
        """Remember that the worker will hold this model now, and which it will have let go."""
        self.loaded = [*(each for each in self.loaded if each != digest), digest][-most:]

    def detach(self) -> None:
        """Send the holder no more events."""
        self._holder = None

    async def dismiss(self, *, cancel: bool, grace_s: float) -> bool:
        """End the lease: the worker forgets the call, at once where `cancel`.

        Returns:
            False: it did not within the grace, or it is gone.
        """
        self.detach()
        if self.gone.is_set():
            return False
        self._closed = self._loop.create_future()
        if cancel:
            self.send(worker_pb2.Command(cancel=worker_pb2.Cancel()))
        self.send(worker_pb2.Command(close=worker_pb2.Close()))
        try:
            async with asyncio.timeout(grace_s):
                await self._closed
        except (TimeoutError, ConnectionError):
            return False
        finally:
            self._closed = None
        return True

    def condemn(self) -> None:
        """Treat the worker as gone; `end` kills it."""
        if not self.gone.is_set():
            self._on_lost()

    async def end(self) -> int:
        """Kill the process and wait for its end. Returns the exit status."""
        self._holder = None
        self.gone.set()
        status = await self._process.end()
        if self.ready.done() and not self.ready.cancelled():
            self.ready.exception()
        return status

    def _on_event(self, event: worker_pb2.Event, descriptors: list[int]) -> None:
        self.heard_at = self._loop.time()
        kind = event.WhichOneof("event")
        if kind == "ready":
            if not self.ready.done():
                self.ready.set_result(event.ready)
        elif self._closed is not None and kind == "closed" and event.call == self._call and not self._closed.done():
            self._closed.set_result(None)
        elif self._holder is not None and event.call == self._call and kind != "heartbeat":
            self._holder.hear(self, event, descriptors)
            return
        close_all(descriptors)

    def _on_lost(self) -> None:
        holder, self._holder = self._holder, None
        self.died_at_work = holder is not None
        self.gone.set()
        for future in (self.ready, self._closed):
            if future is not None and not future.done():
                future.set_exception(ConnectionError("the worker is gone"))
        if holder is not None:
            holder.lose(self)
