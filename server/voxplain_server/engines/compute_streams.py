"""Threads that each compute on one core: on small crops two of them beat one computation spread over two cores."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class ComputeStreams:
    """Carries out work on several threads of one core each. Every result is that of one core, whatever their number.

    Args:
        threads: how many; with one, the calling thread does the work.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of the items; few are under way at one time, and none is begun that is not asked for."""
        if self.threads <= 1:
            yield from map(work, items)
            return
        if self._pool is None:
            self._pool = _one_core_pool(self.threads)
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(work, item))
                if len(waiting) > self.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # Nobody waits for the rest: what has not begun never does, what has begun ends before the caller goes on.
            for future in waiting:
                future.cancel()
            for future in waiting:
                if not future.cancelled():
                    future.exception()


def _one_core_pool(threads: int) -> ThreadPoolExecutor:
    """torch keeps the number of cores for every thread apart, and one number for threads that are to come."""
    before = torch.get_num_threads()
    started = threading.Barrier(threads + 1)

    def start() -> None:
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="voxplain-crops", initializer=start)
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(before)
    return pool
