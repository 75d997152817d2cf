"""Where incoming cases lie: nameless files in memory, one of them kept ready with its pages."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable

from voxplain_server.workers.ledger import Ledger
from voxplain_server.workers.memory import create_memory

SMALLEST_TO_KEEP_READY = 8 << 20
"""Bytes below which a case takes a fresh file: new pages cost it less than 5 ms."""
KEPT_NAME = "voxplain-upload-buffer"
_FIRST_LOOK_SECONDS, _LONGEST_PAUSE_SECONDS = 0.02, 1.0
_ZEROS = memoryview(bytes(1 << 20))


class CaseFile:
    """The memory of one case.

    Args:
        writable: descriptor through which the front writes.
        on_close: called once, in a thread, when the front has let go of `shared`.

    Attributes:
        shared: descriptor for workers, through which nothing can be changed. Whoever holds it, or maps it, holds a lock of
            the system on the file, and loses it with the last descriptor and mapping, however its process ends.
    """

    def __init__(self, writable: int, *, on_close: Callable[[], None]) -> None:
        self._writable = writable
        self._on_close = on_close
        # Opened anew, and not duplicated: only then have the front's own descriptor and this one different locks.
        self.shared = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self.shared, fcntl.LOCK_SH)

    def write(self, data: memoryview, offset: int) -> None:
        """Put bytes at a place.

        Raises:
            OSError: the system gives no more memory.
        """
        # Not in a thread of its own: handing a chunk over costs more than copying it (measured on two cores), and gRPC's own
        # threads read the next one meanwhile.
        _write(self._writable, data, offset)

    def close(self) -> None:
        """Let go of the memory; workers that still map it keep it until they are done.

        In a thread: freeing a large case takes longer than other calls should wait.
        """
        asyncio.get_running_loop().run_in_executor(None, self._close)

    def _close(self) -> None:
        os.close(self.shared)
        self._on_close()


class CaseFiles:
    """Opens a file for each case.

    Writing to pages that were never used takes longer than the copy itself: a third of an upload's time on two cores. So one
    file can be kept with all its pages. A case gets it when nobody else has it, and it is erased before it is kept again.

    Args:
        ledger: where open files are booked.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._kept = -1
        self._kept_bytes = 0
        self._ready = False
        self._reclaiming: asyncio.Task[None] | None = None

    async def keep(self, size: int) -> None:
        """Keep a file of so many bytes ready from now on.

        Raises:
            OSError: the system gives no more memory.
        """
        self._kept, self._kept_bytes = create_memory(size, KEPT_NAME), size
        await self._erase(size)

    async def close(self) -> None:
        """Keep none any more."""
        self._ready = False
        if self._reclaiming is not None:
            self._reclaiming.cancel()
            await asyncio.wait([self._reclaiming])
        if self._kept >= 0:
            os.close(self._kept)
            self._kept = -1

    def open(self, size: int) -> CaseFile:
        """A file of at least so many bytes, all zero.

        Raises:
            OSError: the system gives no more memory, or no more descriptors.
        """
        if self._ready and SMALLEST_TO_KEEP_READY <= size <= self._kept_bytes:
            return self._open_kept(size)
        writable = create_memory(size)
        given_back = self._ledger.lend("case_files")

        def end() -> None:
            os.close(writable)
            given_back()

        try:
            return CaseFile(writable, on_close=end)
        except OSError:
            end()
            raise

    def _open_kept(self, size: int) -> CaseFile:
        loop = asyncio.get_running_loop()
        given_back = self._ledger.lend("case_files")

        def end() -> None:
            given_back()
            loop.call_soon_threadsafe(self._begin_to_reclaim, size)

        try:
            case = CaseFile(self._kept, on_close=end)
        except OSError:
            given_back()
            raise
        self._ready = False
        return case

    def _begin_to_reclaim(self, size: int) -> None:
        if self._kept >= 0:
            self._reclaiming = asyncio.get_running_loop().create_task(self._reclaim(size))

    async def _reclaim(self, size: int) -> None:
        """Wait until no worker sees the file any more, erase it, and keep it ready again."""
        pause = _FIRST_LOOK_SECONDS
        while not _is_ours_alone(self._kept):
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        await self._erase(size)

    async def _erase(self, size: int) -> None:
        # Duplicated: the thread goes on when this task is cancelled, and must not write to whatever has the number then.
        await asyncio.to_thread(_fill_with_zeros, os.dup(self._kept), size)
        self._ready = True


def _is_ours_alone(descriptor: int) -> bool:
    """Whether the last `shared` descriptor, and the last mapping made of one, is gone, in whatever process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def _fill_with_zeros(descriptor: int, size: int) -> None:
    try:
        for offset in range(0, size, len(_ZEROS)):
            _write(descriptor, _ZEROS[: size - offset], offset)
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)
