"""What the front has taken and not given back: the books by which leaks are found, in tests and in production.

Light: runs in the front, so neither torch nor onnxruntime may be imported from here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Literal, get_args

Resource = Literal[
    "handlers",
    "slots",
    "admitted_bytes",
    "case_files",
    "map_files",
    "score_boards",
    "queue_places",
    "jobs",
    "workers",
    "tasks",
]
"""handlers: Explain calls that were entered and not left, admitted or not. slots, admitted_bytes: what admission has given.
case_files, map_files, score_boards: memory files that the front holds open. queue_places: calls that wait for a worker. jobs:
calls at work in the pool. workers: compute processes that are with a call, or on their way back from it. tasks: asyncio tasks
that calls have started."""

RESOURCES: tuple[Resource, ...] = get_args(Resource)


class Ledger:
    """Counts what is acquired and released. At rest everything is released; below zero something was released twice.

    Every entry stands beside the act that it counts, never beside the wish for it. May be used from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._acquired: dict[Resource, int] = dict.fromkeys(RESOURCES, 0)
        self._released: dict[Resource, int] = dict.fromkeys(RESOURCES, 0)

    def acquire(self, resource: Resource, amount: int = 1) -> None:
        """Note that so much was taken."""
        with self._lock:
            self._acquired[resource] += amount

    def release(self, resource: Resource, amount: int = 1) -> None:
        """Note that so much was given back."""
        with self._lock:
            self._released[resource] += amount

    def lend(self, resource: Resource) -> Callable[[], None]:
        """Note that one was taken; calling what is returned notes that it was given back."""
        self.acquire(resource)
        return lambda: self.release(resource)

    def watch(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        """Note a task until it is done; returns it."""
        self.acquire("tasks")
        task.add_done_callback(lambda _: self.release("tasks"))
        return task

    @property
    def held(self) -> dict[Resource, int]:
        """What is taken and not given back, by resource; all of them, also those at zero."""
        with self._lock:
            return {each: self._acquired[each] - self._released[each] for each in RESOURCES}

    @property
    def acquired(self) -> dict[Resource, int]:
        """What was taken since the start, by resource."""
        with self._lock:
            return dict(self._acquired)

    @property
    def left(self) -> dict[Resource, int]:
        """What of `held` is not zero; empty at rest."""
        return {each: amount for each, amount in self.held.items() if amount}
