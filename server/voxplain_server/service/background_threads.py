"""Threads for what would hold up the front's event loop: freeing large cases, looking at folders, waiting for ends."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

SPARE_THREADS = 2


def start_threads(workers: int) -> None:
    """Give the running event loop a default executor whose threads are all there from the start.

    asyncio's own one starts a thread whenever none is idle: how many the front has would then depend on its past, and one that
    cannot be started, because the container is full, would fail a call in the middle.

    Args:
        workers: compute processes; each may have an end to wait for.

    Raises:
        RuntimeError: the system gives no more threads.
    """
    count = SPARE_THREADS + workers
    executor = ThreadPoolExecutor(count, thread_name_prefix="voxplain")
    together = threading.Barrier(count)
    # Each waits for all others, so that no thread can take two of them.
    for begun in [executor.submit(together.wait) for _ in range(count)]:
        begun.result()
    asyncio.get_running_loop().set_default_executor(executor)
