"""Threads that each compute on one core: on small crops two of them beat one computation spread over two cores."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_ASKED_EVERY_S = 0.1


class ComputeStreams:
    """Carries out work on several threads of one core each. Every result is that of one core, whatever their number.

    Args:
        threads: how many.
    """

    def __init__(self, threads: int) -> None:
        self.threads = max(threads, 1)
        self._pool: ThreadPoolExecutor | None = None

    def map(self, work: Callable[[Item], Result], items: Iterable[Item], *, ask: Callable[[], None]) -> Iterator[Result]:
        """Results in the order of the items; few are under way at one time, and none is begun that is not asked for.

        Args:
            work: carried out on one of the threads.
            items: what for.
            ask: called by the calling thread ten times in a second; what it raises ends everything once the work under way
                has ended.
        """
        if self._pool is None:
            self._pool = _one_core_pool(self.threads)
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                ask()
                waiting.append(self._pool.submit(work, item))
                if len(waiting) > self.threads:
                    yield _result(waiting[0], ask)
                    waiting.popleft()
            while waiting:
                yield _result(waiting[0], ask)
                waiting.popleft()
        finally:
            # Nobody waits for the rest: what has not begun never does, what has begun ends before the caller goes on.
            for future in waiting:
                future.cancel()
            wait([future for future in waiting if not future.cancelled()])


def _result(future: Future[Result], ask: Callable[[], None]) -> Result:
    while not future.done():
        wait([future], timeout=_ASKED_EVERY_S)
        ask()
    return future.result()


def _one_core_pool(threads: int) -> ThreadPoolExecutor:
    """torch keeps the number of cores for every thread apart, and one number for threads that are to come."""
    before = torch.get_num_threads()
    started = threading.Barrier(threads + 1)

    def start() -> None:
        # A thread takes the number kept for new ones when it is first asked; only after that does its own one hold.
        torch.get_num_threads()
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="voxplain-crops", initializer=start)
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(before)
    return pool
