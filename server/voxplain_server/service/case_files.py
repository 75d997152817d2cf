"""Where incoming cases lie: nameless files in memory, one of them kept ready with its pages."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable

from voxplain_server.workers.ledger import Ledger
from voxplain_server.workers.memory import create_memory

log = logging.getLogger(__name__)

SMALLEST_TO_KEEP_READY = 8 << 20
"""Bytes below which a case takes a fresh file: new pages cost it less than 5 ms."""
KEPT_NAME = "voxplain-upload-buffer"
_FIRST_LOOK_SECONDS, _LONGEST_PAUSE_SECONDS = 0.02, 1.0
_LATE_SECONDS = 60.0
"""A worker that still has the file so long after its call should be known of."""
_ZEROS = memoryview(bytes(1 << 20))


class CaseFile:
    """The memory of one case.

    Args:
        descriptor: of the file; this object has its own duplicate.
        locked: whether `shared` carries a lock by which the front learns when nobody has it any more.
        on_close: called once, in a thread, when the front has let go of the file.

    Attributes:
        shared: descriptor for workers, opened for reading alone. It stays the front's.

    Raises:
        OSError: no more descriptors, or no `/proc` where a lock is asked for.
    """

    def __init__(self, descriptor: int, *, locked: bool, on_close: Callable[[], None]) -> None:
        self.shared = _open_for_reading(descriptor, locked=locked)
        try:
            self._writable = os.dup(descriptor)
        except OSError:
            os.close(self.shared)
            raise
        self._on_close = on_close

    def write(self, data: memoryview, offset: int) -> None:
        """Put bytes at a place.

        Raises:
            OSError: the system gives no more memory, or the file was closed.
        """
        # Not in a thread of its own: handing a chunk over costs more than copying it (measured on two cores), and gRPC's own
        # threads read the next one meanwhile.
        _write(self._writable, data, offset)

    def close(self) -> None:
        """Let go of the memory; workers that still map it keep it until they are done.

        In a thread: freeing a large case takes longer than other calls should wait.
        """
        # Nothing may be written from now on: the number may soon be another file's, and the file another case's.
        writable, self._writable = self._writable, -1
        asyncio.get_running_loop().run_in_executor(None, self._close, writable)

    def _close(self, writable: int) -> None:
        os.close(self.shared)
        os.close(writable)
        self._on_close()


class CaseFiles:
    """Opens a file for each case.

    Writing to pages that were never used takes longer than the copy itself: a third of an upload's time on two cores. So one
    file can be kept with all its pages. A case gets it when nobody else has it, and it is erased before it is kept again.

    Args:
        ledger: where open files are booked.
        smallest: bytes below which a case gets a fresh file.
    """

    def __init__(self, ledger: Ledger, *, smallest: int = SMALLEST_TO_KEEP_READY) -> None:
        self._ledger = ledger
        self._smallest = smallest
        self._kept = -1
        self._kept_bytes = 0
        self._ready = False
        self._reclaiming: asyncio.Task[None] | None = None
        self._erasing: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the kept file waits for a case."""
        return self._ready

    async def keep(self, size: int) -> None:
        """Keep a file of so many bytes ready from now on.

        Raises:
            OSError: the system gives no more memory, or cannot tell who has a file; none is kept then.
        """
        self._kept, self._kept_bytes = create_memory(size, KEPT_NAME), size
        try:
            os.close(_open_for_reading(self._kept, locked=True))
            await self._erase(size)
        except OSError:
            self._drop()
            raise

    async def close(self) -> None:
        """Keep none any more. Files of cases are closed by themselves."""
        self._drop()
        if self._reclaiming is not None:
            self._reclaiming.cancel()
        ending = [each for each in (self._reclaiming, self._erasing) if each is not None]
        await asyncio.gather(*ending, return_exceptions=True)

    def open(self, size: int) -> CaseFile:
        """A file of at least so many bytes, all zero.

        Raises:
            OSError: the system gives no more memory, or no more descriptors.
        """
        if self._ready and self._smallest <= size <= self._kept_bytes:
            return self._open_kept(size)
        descriptor = create_memory(size)
        try:
            case = CaseFile(descriptor, locked=False, on_close=lambda: self._ledger.release("case_files"))
        finally:
            os.close(descriptor)
        self._ledger.acquire("case_files")
        return case

    def _open_kept(self, size: int) -> CaseFile:
        loop = asyncio.get_running_loop()

        def end() -> None:
            self._ledger.release("case_files")
            loop.call_soon_threadsafe(self._begin_to_reclaim, size)

        case = CaseFile(self._kept, locked=True, on_close=end)
        self._ledger.acquire("case_files")
        self._ready = False
        return case

    def _begin_to_reclaim(self, size: int) -> None:
        if self._kept >= 0:
            self._reclaiming = asyncio.get_running_loop().create_task(self._reclaim(size))

    async def _reclaim(self, size: int) -> None:
        """Wait until no worker sees the file any more, erase it, and keep it ready again."""
        loop = asyncio.get_running_loop()
        began, pause, late = loop.time(), _FIRST_LOOK_SECONDS, False
        try:
            while not _is_nobody_elses(self._kept):
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                if not late and loop.time() - began > _LATE_SECONDS:
                    late = True
                    log.warning("upload_buffer_held", extra={"fields": {"seconds": _LATE_SECONDS}})
            await self._erase(size)
        except OSError:
            # Uploads go on without it; what is in it goes with the file.
            log.warning("upload_buffer_lost", extra={"fields": {}})
            self._drop()

    async def _erase(self, size: int) -> None:
        # Duplicated: the thread goes on when this task is cancelled, and must not write to whatever has the number then.
        # Shielded: a thread that never begins would not close it.
        work = asyncio.to_thread(_fill_with_zeros, os.dup(self._kept), size)
        self._erasing = asyncio.get_running_loop().create_task(work)
        await asyncio.shield(self._erasing)
        self._ready = self._kept >= 0

    def _drop(self) -> None:
        self._ready = False
        if self._kept >= 0:
            os.close(self._kept)
            self._kept = -1


def _open_for_reading(descriptor: int, *, locked: bool) -> int:
    """Another descriptor of the file, opened anew and not duplicated: only then has it a lock of its own.

    The system holds that lock as long as any process has the descriptor, a duplicate or a mapping made of it.
    """
    try:
        opened = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        if locked:
            raise
        return os.dup(descriptor)
    try:
        if locked:
            fcntl.flock(opened, fcntl.LOCK_SH)
    except OSError:
        os.close(opened)
        raise
    return opened


def _is_nobody_elses(descriptor: int) -> bool:
    """Whether the last descriptor that was opened for reading, and the last mapping made of it, is gone in every process."""
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
