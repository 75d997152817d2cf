"""Keeps compute processes alive: starts them, replaces what has ended, and knows when starting them is in vain.

Light: runs in the front, so neither torch nor onnxruntime may be imported from here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from voxplain_server.workers.events import PoolObserver
from voxplain_server.workers.pool_settings import PoolSettings
from voxplain_server.workers.worker import Worker

log = logging.getLogger(__name__)

_MAX_RESTART_DELAY_S = 30.0
_FAILING_STARTS = 3
"""After so many bad starts in a row, of every worker, the compute as a whole is failing."""


class Crew:
    """The workers of a pool, one to a slot.

    Args:
        settings: the pool's.
        observer: told of starts and ends.
        on_up: called with every worker that is ready.
        on_down: called with every worker that is gone.
    """

    def __init__(
        self,
        settings: PoolSettings,
        observer: PoolObserver,
        *,
        on_up: Callable[[Worker], None],
        on_down: Callable[[Worker], None],
    ) -> None:
        self._settings = settings
        self._observer = observer
        self._on_up, self._on_down = on_up, on_down
        self._alive: set[Worker] = set()
        self._ready: set[Worker] = set()
        self._bad_starts = [0] * settings.workers

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers alive, those that are still starting among them."""
        return tuple(self._alive)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers alive."""
        return tuple(worker.pid for worker in self._alive)

    @property
    def failing(self) -> bool:
        """Whether every worker has ended by itself, several times in a row, soon after its start and without a call."""
        return min(self._bad_starts) >= _FAILING_STARTS

    async def keep(self, slot: int) -> None:
        """Keep the worker of one slot alive; until cancelled."""
        while True:
            worker = Worker(self._settings.worker_start)
            self._alive.add(worker)
            if not await self._live(slot, worker):
                self._bad_starts[slot] += 1
                self._tell()
                # The first time at once: it may have been an accident.
                delay = 2.0 ** (self._bad_starts[slot] - 2) if self._bad_starts[slot] > 1 else 0.0
                await asyncio.sleep(min(delay, _MAX_RESTART_DELAY_S))

    async def end(self) -> None:
        """End every worker; `keep` must have been cancelled before."""
        await asyncio.gather(*(worker.end() for worker in list(self._alive)))
        self._alive.clear()

    async def _live(self, slot: int, worker: Worker) -> bool:
        """From the start of a worker to its end. False: it came to nothing by itself, and the next may as well."""
        try:
            async with asyncio.timeout(self._settings.start_s):
                await worker.ready
        except (TimeoutError, ConnectionError):
            self._observer.restarts("start")
            log.warning("worker_not_started", extra={"fields": {"pid": worker.pid}})
            await self._bury(worker)
            return False
        self._ready.add(worker)
        self._tell()
        settling = asyncio.get_running_loop().call_later(self._settings.settled_s, self._settle, slot)
        self._on_up(worker)
        try:
            await worker.gone.wait()
        finally:
            settled = settling.when() <= asyncio.get_running_loop().time()
            settling.cancel()
            self._ready.discard(worker)
        self._tell()
        status = await self._bury(worker)
        if worker.condemned:
            return True
        self._observer.restarts("died")
        log.warning("worker_died", extra={"fields": {"pid": worker.pid, "status": status}})
        # A call that kills its worker says nothing about the next worker: else one client could end the service for all.
        return worker.died_at_work or settled

    async def _bury(self, worker: Worker) -> int:
        self._on_down(worker)
        try:
            return await worker.end()
        finally:
            self._alive.discard(worker)

    def _settle(self, slot: int) -> None:
        self._bad_starts[slot] = 0
        self._tell()

    def _tell(self) -> None:
        self._observer.workers(ready=len(self._ready), failing=self.failing)
