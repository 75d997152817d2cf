"""Memory of a process and all its descendants, as proportional set size."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20


def tree_of(pid: int) -> list[int]:
    """The process and its descendants that live now."""
    found, queue = [], [pid]
    while queue:
        each = queue.pop()
        found.append(each)
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                queue.extend(int(child) for child in task.read_text().split())
            except OSError:
                continue
    return found


def proportional_bytes(pid: int) -> int:
    """PSS summed over the tree, in bytes. A process that ends while it is read counts nothing.

    Pages of memory files that no process maps (a memfd that is only written to) are in no PSS: see `memory_file_bytes`.
    """
    total = 0
    for each in tree_of(pid):
        try:
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            continue
    return total


def memory_file_bytes(pid: int) -> int:
    """Bytes of the distinct memory files that the tree holds open, whether or not they are mapped."""
    sizes: dict[tuple[int, int], int] = {}
    for each in tree_of(pid):
        for descriptor in Path(f"/proc/{each}/fd").glob("*"):
            try:
                if "memfd:" in str(descriptor.readlink()):
                    status = descriptor.stat()
                    sizes[status.st_dev, status.st_ino] = status.st_blocks * 512
            except OSError:
                continue
    return sum(sizes.values())


def mapped_file_bytes(pid: int) -> int:
    """PSS of mapped memory files in the tree, so that they are not counted twice."""
    total = 0
    for each in tree_of(pid):
        try:
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss_Shmem:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            continue
    return total


def used_bytes(pid: int) -> int:
    """All that the tree holds: PSS, and memory files beyond what of them is mapped."""
    return proportional_bytes(pid) + max(memory_file_bytes(pid) - mapped_file_bytes(pid), 0)


@dataclass(slots=True)
class Peak:
    """The largest reading so far, in bytes."""

    bytes: int = 0


@contextmanager
def watched(pid: int, every_s: float = 0.05) -> Iterator[Peak]:
    """Read the tree's memory again and again in a thread; the peak is in the yielded object."""
    peak, stop = Peak(used_bytes(pid)), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            peak.bytes = max(peak.bytes, used_bytes(pid))
            time.sleep(every_s)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
