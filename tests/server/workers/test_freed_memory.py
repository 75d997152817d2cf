"""When a worker gives freed memory back between the methods of a call, and that it does."""

from __future__ import annotations

import subprocess
import sys

import pytest
from voxplain_server.workers.freed_memory import FreedMemory

FREES = """
import ctypes
from pathlib import Path
from voxplain_server.workers.freed_memory import FreedMemory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
pieces = [libc.malloc(1 << 20) for _ in range(200)]
for piece in pieces:
    ctypes.memset(piece, 1, 1 << 20)
for piece in pieces[:-1]:
    libc.free(piece)
before = resident()
freed = FreedMemory()
freed.turn_to(0, evaluations=1)
freed.turn_to(1, evaluations=100)
print(before - resident())
"""


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One element for each time."""
    times: list[None] = []
    monkeypatch.setattr(FreedMemory, "give_back", lambda self: times.append(None))
    return times


def test_it_does_not_go_back_before_the_first_method(given_back: list[None]) -> None:
    FreedMemory().turn_to(0, evaluations=50)
    assert given_back == []


def test_memory_goes_back_before_and_after_each_long_method_and_not_between_blocks(given_back: list[None]) -> None:
    freed = FreedMemory()
    freed.begin()
    for method, evaluations, times in (
        (0, 1, 0),
        (1, 2, 0),
        (2, 50, 1),
        (2, 50, 1),
        (3, 1, 2),
        (4, 1, 2),
        (5, 9, 3),
        (6, 9, 4),
    ):
        freed.turn_to(method, evaluations=evaluations)
        assert len(given_back) == times


def test_another_call_starts_anew(given_back: list[None]) -> None:
    freed = FreedMemory()
    for _ in range(2):
        freed.begin()
        freed.turn_to(0, evaluations=50)
        assert given_back == []
    freed.turn_to(1, evaluations=1)
    assert len(given_back) == 1


def test_what_the_allocator_held_is_the_systems_again() -> None:
    held = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "268435456"}
    done = subprocess.run([sys.executable, "-c", FREES], env={**held, "PYTHONPATH": ":".join(sys.path)}, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert int(done.stdout) > 150 << 20
