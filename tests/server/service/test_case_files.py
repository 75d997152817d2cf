"""Files for incoming cases: who may write them, and when the kept one is used again."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from voxplain_server.service import case_files
from voxplain_server.service.case_files import KEPT_NAME, SMALLEST_TO_KEEP_READY, CaseFile, CaseFiles
from voxplain_server.workers.ledger import Ledger

from tests.oracle import memory_files, settle

SIZE = SMALLEST_TO_KEEP_READY + 4096
WORD = b"a voxel of somebody"
HOLDING = """
import mmap, os, sys
seen = mmap.mmap(int(sys.argv[1]), 64, access=mmap.ACCESS_READ)
os.close(int(sys.argv[1]))
print(seen[:19].decode(), flush=True)
sys.stdin.readline()
seen.close()
print("closed", flush=True)
sys.stdin.readline()
"""


@asynccontextmanager
async def keeping(size: int = SIZE) -> AsyncIterator[tuple[CaseFiles, Ledger]]:
    """Files of which one is kept; at the end nothing is held and nothing open."""
    before, ledger = memory_files(), Ledger()
    files = CaseFiles(ledger)
    await files.keep(size)
    try:
        yield files, ledger
    finally:
        await files.close()
    await settle(ledger, files=before)
    await nothing_kept()


def kept_descriptors() -> int:
    """Descriptors of kept files in this process."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        try:
            found += KEPT_NAME in str(each.readlink())
        except OSError:
            # The descriptor by which the folder was read.
            continue
    return found


async def nothing_kept() -> None:
    """Wait until the last of them is closed: a thread that erases one has a descriptor of its own."""
    async with asyncio.timeout(10):
        while kept_descriptors():
            await asyncio.sleep(0.001)


def inode(case: CaseFile) -> int:
    return os.fstat(case.shared).st_ino


async def closed(case: CaseFile, ledger: Ledger) -> None:
    """Close a file and wait until the front has let go of it."""
    case.close()
    async with asyncio.timeout(10):
        while ledger.held["case_files"]:
            await asyncio.sleep(0.001)


async def ready(files: CaseFiles) -> None:
    """Wait until the kept file can be had."""
    async with asyncio.timeout(30):
        while not files.is_ready:
            await asyncio.sleep(0.001)


async def never_ready(files: CaseFiles) -> None:
    """Longer than the first looks of the front take."""
    for _ in range(40):
        assert not files.is_ready
        await asyncio.sleep(0.005)


@contextmanager
def held_by_another_process(case: CaseFile) -> Iterator[subprocess.Popen[str]]:
    """Another process maps a file and closes the descriptor, as workers do."""
    command = [sys.executable, "-c", HOLDING, str(case.shared)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, pass_fds=[case.shared], text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == WORD.decode()
        yield holder


async def test_workers_cannot_change_a_case() -> None:
    async with keeping() as (files, ledger):
        for size in (64, SIZE):
            case = files.open(size)
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.pwrite(case.shared, WORD, 0)
            with pytest.raises(PermissionError):
                mmap.mmap(case.shared, 64, access=mmap.ACCESS_WRITE)
            await closed(case, ledger)


@pytest.mark.parametrize("size", [SMALLEST_TO_KEEP_READY, SMALLEST_TO_KEEP_READY + 1, SIZE])
async def test_the_kept_file_comes_back_erased(size: int) -> None:
    async with keeping() as (files, ledger):
        first = files.open(size)
        first.write(memoryview(WORD), 0)
        first.write(memoryview(WORD), size - len(WORD))
        kept = inode(first)
        await closed(first, ledger)
        await ready(files)
        second = files.open(SIZE)
        assert inode(second) == kept
        assert os.pread(second.shared, SIZE, 0) == bytes(SIZE)
        await closed(second, ledger)


@pytest.mark.parametrize("size", [64, SIZE])
async def test_nothing_is_written_after_the_end(size: int) -> None:
    async with keeping() as (files, ledger):
        case = files.open(size)
        case.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            case.write(memoryview(WORD), 0)
        await settle(ledger, files=memory_files())


async def test_a_second_case_at_the_same_time_gets_another_file() -> None:
    async with keeping() as (files, ledger):
        first, second = files.open(SIZE), files.open(SIZE)
        assert inode(first) != inode(second)
        second.write(memoryview(WORD), 0)
        assert os.pread(first.shared, len(WORD), 0) == bytes(len(WORD))
        first.close()
        await closed(second, ledger)


@pytest.mark.parametrize("size", [64, SMALLEST_TO_KEEP_READY - 1, SIZE + 1])
async def test_what_is_too_small_or_too_large_gets_another_file(size: int) -> None:
    async with keeping() as (files, ledger):
        other = files.open(size)
        assert files.is_ready
        assert KEPT_NAME not in str(Path(f"/proc/self/fd/{other.shared}").readlink())
        await closed(other, ledger)


@pytest.mark.parametrize("end", ["unmaps", "is killed"])
async def test_it_is_not_used_again_while_another_process_maps_it(end: str) -> None:
    async with keeping() as (files, ledger):
        case = files.open(SIZE)
        case.write(memoryview(WORD), 0)
        with held_by_another_process(case) as holder:
            await closed(case, ledger)
            await never_ready(files)
            if end == "is killed":
                holder.kill()
            else:
                assert holder.stdin is not None
                assert holder.stdout is not None
                holder.stdin.write("\n")
                holder.stdin.flush()
                assert holder.stdout.readline() == "closed\n"
            await ready(files)
            assert end == "is killed" or holder.poll() is None


async def test_it_is_not_used_again_while_it_is_on_its_way_to_a_worker() -> None:
    async with keeping() as (files, ledger):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            case = files.open(SIZE)
            socket.send_fds(ours, [b"case"], [case.shared])
            await closed(case, ledger)
            await never_ready(files)
            _, (received,), _, _ = socket.recv_fds(theirs, 16, 1)
            await never_ready(files)
            os.close(received)
            await ready(files)


async def test_closing_does_not_wait_for_who_still_maps_it() -> None:
    async with asyncio.timeout(10), keeping() as (files, ledger):
        case = files.open(SIZE)
        case.write(memoryview(WORD), 0)
        with held_by_another_process(case):
            await closed(case, ledger)
            await never_ready(files)
            await files.close()


async def test_a_file_that_cannot_be_erased_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(descriptor: int, size: int) -> None:
        os.close(descriptor)
        raise OSError(size)

    async with keeping() as (files, ledger):
        case = files.open(SIZE)
        monkeypatch.setattr(case_files, "_fill_with_zeros", refused)
        await closed(case, ledger)
        await nothing_kept()
        assert not files.is_ready
        await closed(files.open(SIZE), ledger)


async def test_nothing_is_kept_where_there_is_no_memory_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(descriptor: int, size: int) -> None:
        os.close(descriptor)
        raise OSError(size)

    monkeypatch.setattr(case_files, "_fill_with_zeros", refused)
    files = CaseFiles(Ledger())
    with pytest.raises(OSError):
        await files.keep(SIZE)
    assert (files.is_ready, kept_descriptors()) == (False, 0)


async def test_a_worker_that_keeps_it_long_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(case_files, "_LATE_SECONDS", 0.05)
    async with keeping() as (files, ledger):
        case = files.open(SIZE)
        held = os.dup(case.shared)
        await closed(case, ledger)
        async with asyncio.timeout(10):
            while "upload_buffer_held" not in caplog.text:
                await asyncio.sleep(0.01)
        os.close(held)
        await ready(files)
        assert caplog.text.count("upload_buffer_held") == 1
