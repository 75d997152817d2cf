"""Fills a call's memory from a thread of its own, so that the next chunk is read while the last one is copied."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future, ThreadPoolExecutor

from voxplain_server.workers.memory import create_memory

INLINE_BYTES = 128 * 1024
"""Smaller pieces are copied faster than handed to a thread."""


class MemoryWriter:
    """A memfd and the one thread that writes to it, and closes it.

    One thread does both in order, so nothing is ever written to a descriptor that was closed, whenever a call ends.

    Args:
        size: bytes; nothing is allocated before it is written.

    Attributes:
        memory: the descriptor.
    """

    def __init__(self, size: int) -> None:
        self.memory = create_memory(size)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._last: Future[None] | None = None

    def write(self, offset: int, data: memoryview) -> None:
        """Begin to write; `data` must not change until `settle` returns.

        Raises:
            OSError: the system gives no more memory.
        """
        if len(data) < INLINE_BYTES:
            _write(self.memory, offset, data)
        else:
            self._last = self._thread.submit(_write, self.memory, offset, data)

    async def settle(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: the system gives no more memory.
        """
        last, self._last = self._last, None
        if last is None:
            return
        if last.done():
            last.result()
        else:
            await asyncio.wrap_future(last)

    def close(self) -> None:
        """Give the memory back, once what was begun is written; returns at once, because freeing takes its time too."""
        self._thread.submit(os.close, self.memory)
        self._thread.shutdown(wait=False)


def _write(memory: int, offset: int, data: memoryview) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(memory, data[written:], offset + written)
