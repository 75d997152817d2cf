"""Files for incoming cases: who may write them, and when the kept one is used again."""

from __future__ import annotations

import asyncio
import mmap
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from voxplain_server.service.case_files import SMALLEST_TO_KEEP_READY, CaseFile, CaseFiles
from voxplain_server.workers.ledger import Ledger

from tests.oracle import memory_files, settle

SIZE = SMALLEST_TO_KEEP_READY + 4096
WORD = b"a voxel of somebody"
HOLDING = """
import mmap, os, sys
seen = mmap.mmap(int(sys.argv[1]), 64, access=mmap.ACCESS_READ)
os.close(int(sys.argv[1]))
print(seen[:19].decode(), flush=True)
sys.stdin.read()
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


def inode(case: CaseFile) -> int:
    return os.fstat(case.shared).st_ino


async def closed(case: CaseFile, ledger: Ledger) -> None:
    """Close a file and wait until the front has let go of it."""
    case.close()
    async with asyncio.timeout(10):
        while ledger.held["case_files"]:
            await asyncio.sleep(0.001)


async def kept_again(files: CaseFiles, ledger: Ledger, kept: int) -> CaseFile:
    """Open files until the kept one comes; so many bytes of it as a case has are zero then."""
    async with asyncio.timeout(30):
        while inode(case := files.open(SIZE)) != kept:
            await closed(case, ledger)
            await asyncio.sleep(0.01)
    assert os.pread(case.shared, SIZE, 0) == bytes(SIZE)
    return case


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


async def test_the_kept_file_comes_back_erased() -> None:
    async with keeping() as (files, ledger):
        first = files.open(SIZE)
        first.write(memoryview(WORD), 0)
        first.write(memoryview(WORD), SIZE - len(WORD))
        kept = inode(first)
        await closed(first, ledger)
        await closed(await kept_again(files, ledger, kept), ledger)


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
        fitting, other = files.open(SIZE), None
        kept = inode(fitting)
        await closed(fitting, ledger)
        await closed(await kept_again(files, ledger, kept), ledger)
        other = files.open(size)
        assert inode(other) != kept
        await closed(other, ledger)


@pytest.mark.parametrize("end", ["unmaps", "is killed"])
async def test_it_is_not_used_again_while_another_process_maps_it(end: str) -> None:
    async with keeping() as (files, ledger):
        case = files.open(SIZE)
        case.write(memoryview(WORD), 0)
        kept = inode(case)
        with held_by_another_process(case) as holder:
            await closed(case, ledger)
            # Longer than the first looks of the front take.
            for _ in range(20):
                other = files.open(SIZE)
                assert inode(other) != kept
                await closed(other, ledger)
                await asyncio.sleep(0.01)
            if end == "is killed":
                holder.kill()
            else:
                assert holder.stdin is not None
                holder.stdin.close()
            holder.wait(10)
        await closed(await kept_again(files, ledger, kept), ledger)


async def test_closing_does_not_wait_for_who_still_maps_it() -> None:
    async with asyncio.timeout(5), keeping() as (files, ledger):
        case = files.open(SIZE)
        case.write(memoryview(WORD), 0)
        with held_by_another_process(case):
            await closed(case, ledger)
            await files.close()
