"""Bytes reach their place whatever their size, and nothing is written after the end."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from voxplain_server.service.memory_writer import INLINE_BYTES, MemoryWriter


async def test_large_and_small_pieces_land_where_they_belong() -> None:
    data = np.random.default_rng(0).bytes(3 * INLINE_BYTES + 7)
    writer = MemoryWriter(len(data))
    for start, stop in ((0, 5), (5, INLINE_BYTES + 5), (INLINE_BYTES + 5, len(data))):
        await writer.settle()
        writer.write(start, memoryview(data)[start:stop])
    await writer.settle()
    assert os.pread(writer.memory, len(data), 0) == data
    writer.close()


async def test_memory_that_the_system_refuses_is_told_by_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "no space")

    writer = MemoryWriter(INLINE_BYTES)
    monkeypatch.setattr(os, "pwrite", full)
    writer.write(0, memoryview(bytes(INLINE_BYTES)))
    with pytest.raises(OSError, match="no space"):
        await writer.settle()
    writer.close()


async def test_closing_waits_its_turn_behind_what_is_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    go, closed, order = threading.Event(), threading.Event(), []
    real_write, real_close = os.pwrite, os.close

    def slow_write(descriptor: int, data: memoryview, offset: int) -> int:
        go.wait(10)
        order.append("write")
        return real_write(descriptor, data, offset)

    def close(descriptor: int) -> None:
        real_close(descriptor)
        if descriptor == memory:
            order.append("close")
            closed.set()

    writer = MemoryWriter(INLINE_BYTES)
    memory = writer.memory
    monkeypatch.setattr(os, "pwrite", slow_write)
    monkeypatch.setattr(os, "close", close)
    writer.write(0, memoryview(bytes(INLINE_BYTES)))
    writer.close()
    go.set()
    assert closed.wait(10)
    assert order == ["write", "close"]
