"""How answers go out: one message at a time, maps in chunks, a Progress at least every second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from voxplain import wire
from voxplain.errors import DeadlinePassed
from voxplain.v1 import explain_pb2

from voxplain_server.service.call_observer import CallObserver
from voxplain_server.service.receive import Context
from voxplain_server.service.writing import write_to
from voxplain_server.workers.job import MapReady
from voxplain_server.workers.memory import map_memory

PROGRESS_SECONDS = 0.7
TICK_SECONDS = 0.2
"""A Progress is due within a second of the last: the silence allowed and the tick that finds it stay below, with room left."""


class Outlet:
    """The way out of one call.

    gRPC allows one write at a time, and a write must not be cancelled half-way if another shall follow; so all go through
    one lock.

    Args:
        context: the call.
        stall_seconds: how long a client may leave one message unread.
        observer: told of bytes of maps.
        freshen: fills into a Progress what the front knows better than whoever computes.

    Attributes:
        progress: where the work stands; repeated by `keep_telling` when nothing newer comes.
        bytes_sent: bytes of maps that are out.
    """

    def __init__(
        self,
        context: Context,
        *,
        stall_seconds: float,
        observer: CallObserver,
        freshen: Callable[[explain_pb2.Progress], None],
    ) -> None:
        self._context = context
        self._stall_seconds = stall_seconds
        self._observer = observer
        self._freshen = freshen
        self._lock = asyncio.Lock()
        self._closed = False
        self._told = asyncio.get_running_loop().time()
        self.progress = explain_pb2.Progress(stage=explain_pb2.Progress.STAGE_RECEIVING)
        self.bytes_sent = 0

    async def send(self, response: explain_pb2.ExplainResponse) -> None:
        """Send one event.

        Raises:
            DeadlinePassed: CLIENT_TOO_SLOW.
        """
        async with self._lock:
            await self._write(response.SerializeToString())
            if response.WhichOneof("event") == "summary":
                self._closed = True

    async def send_progress(self, progress: explain_pb2.Progress) -> None:
        """Send where the work stands, now."""
        self.progress = progress
        self._freshen(progress)
        self._told = asyncio.get_running_loop().time()
        await self.send(explain_pb2.ExplainResponse(progress=progress))
        # A checkpoint goes out once.
        self.progress.ClearField("checkpoint")

    async def send_map(self, ready: MapReady) -> None:
        """Send a map's announcement and its bytes, and close its memory.

        Raises:
            DeadlinePassed: CLIENT_TOO_SLOW.
        """
        try:
            self.progress.stage = explain_pb2.Progress.STAGE_SENDING
            await self.send(explain_pb2.ExplainResponse(map=ready.header))
            await self._send_bytes(ready)
            self.bytes_sent += ready.header.size_bytes
            self._observer.bytes_moved(sent=ready.header.size_bytes)
        finally:
            ready.close()

    async def _send_bytes(self, ready: MapReady) -> None:
        mapped, message = map_memory(ready.memory, ready.header.size_bytes, writable=False), b""
        try:
            for message in wire.encode_chunks(ready.header.id, mapped.data, response=True):
                async with self._lock:
                    await self._write(message)
        finally:
            # Who leaves in the middle leaves an exception, and it keeps this frame until the next full collection.
            del mapped, message

    async def keep_telling(self) -> None:
        """Repeat the last Progress whenever none went out for a while; until cancelled, or the last event is out."""
        loop = asyncio.get_running_loop()
        while not self._closed:
            await asyncio.sleep(TICK_SECONDS)
            if loop.time() - self._told < PROGRESS_SECONDS:
                continue
            async with self._lock:
                if self._closed:
                    return
                self._told = loop.time()
                self._freshen(self.progress)
                await self._write(explain_pb2.ExplainResponse(progress=self.progress).SerializeToString())

    async def _write(self, message: bytes) -> None:
        if self._closed:
            raise DeadlinePassed("CLIENT_TOO_SLOW", "read events as they come")
        try:
            async with asyncio.timeout(self._stall_seconds):
                await write_to(self._context, message)
        except TimeoutError:
            self._closed = True
            raise DeadlinePassed("CLIENT_TOO_SLOW", "read events as they come") from None
