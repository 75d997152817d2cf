"""The workers of one call: who leads, who helps, which blocks each has, and what is done when one is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from voxplain.errors import ServerUnavailable
from voxplain.worker.v1 import worker_pb2

from voxplain_server.workers.method_run import MethodRun
from voxplain_server.workers.worker import Worker

BLOCKS_AHEAD = 2
"""Blocks that a worker has at one time, so that it never waits for the front."""
MAX_STRIKES = 2
"""How often one step may cost a worker before the call is given up: a case that kills workers must not kill them all."""
MAX_LOSSES = 8
_WORKER_LOST = "compute workers were lost over this call; try again"


class Supply(Protocol):
    """Where workers come from and go back to."""

    def release(self, worker: Worker, *, cancel: bool) -> None:
        """Take a worker back."""

    def condemn(self, worker: Worker, reason: str) -> None:
        """Kill a worker; its holder hears of it by `lose`."""


@dataclass(slots=True, eq=False)
class Lease:
    """A worker at work for the call.

    Attributes:
        worker: the worker.
        lead: whether it plans, attributes and estimates.
        prepared: whether it has opened the call.
        recalled: it goes back as soon as its blocks are done.
        blocks: (method, block) that it has, the one under way first.
    """

    worker: Worker
    lead: bool
    prepared: bool = False
    recalled: bool = False
    blocks: list[tuple[int, int]] = field(default_factory=list)


class Leases:
    """Every lease of one call.

    Args:
        supply: where workers go back to.
        silence_s: longest time a worker with work may be silent.
    """

    def __init__(self, supply: Supply, *, silence_s: float) -> None:
        self._supply = supply
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._by_worker: dict[Worker, Lease] = {}
        self._strikes: Counter[tuple[int, int]] = Counter()
        self._losses = 0
        self.leads = 0

    def __len__(self) -> int:
        return len(self._by_worker)

    def of(self, worker: Worker) -> Lease | None:
        """The lease of a worker; None: it has gone back."""
        return self._by_worker.get(worker)

    @property
    def lead(self) -> Lease | None:
        """The lead, once it has opened the call; None while there is none."""
        return next((lease for lease in self._by_worker.values() if lease.lead and lease.prepared), None)

    @property
    def helpers(self) -> int:
        """Workers beside the lead that were not recalled."""
        return sum(not lease.lead and not lease.recalled for lease in self._by_worker.values())

    @property
    def joining(self) -> int:
        """Helpers that are still opening the call."""
        return sum(not lease.lead and not lease.prepared for lease in self._by_worker.values())

    def add(self, worker: Worker, *, lead: bool) -> Lease:
        """Note a worker that has come."""
        self.leads += lead
        self._by_worker[worker] = Lease(worker, lead)
        return self._by_worker[worker]

    def recall(self) -> bool:
        """Mark one helper to go back at the next border of its blocks. False: there is none."""
        helper = next((lease for lease in self._by_worker.values() if not lease.lead and not lease.recalled), None)
        if helper is not None:
            helper.recalled = True
        return helper is not None

    def has_blocks_of(self, method: int) -> bool:
        """Whether a worker has blocks of a method."""
        return any(own == method for lease in self._by_worker.values() for own, _ in lease.blocks)

    def interrupt(self, method: int) -> None:
        """Stop a gradient method after its pass, the blocks of another within one batch; each comes back as failed."""
        for lease in self._by_worker.values():
            if lease.lead or any(own == method for own, _ in lease.blocks):
                lease.worker.send(worker_pb2.Command(cancel=worker_pb2.Cancel(method=method)))

    def hand_out(self, runs: Sequence[MethodRun], *, snapshots: bool) -> None:
        """Give blocks to every worker that can take some. The lead keeps to the first run, whose result is due; helpers work
        ahead.

        Args:
            runs: what is not finished.
            snapshots: whether any are wanted. The first one shall not wait behind a block that the lead has in advance.
        """
        waiting = snapshots and bool(runs) and runs[0].desk is not None and runs[0].desk.blocks_done == 0
        for lease in self._by_worker.values():
            if lease.prepared and not lease.recalled:
                most = 1 if lease.lead and waiting else BLOCKS_AHEAD
                while len(lease.blocks) < most and self._hand_to(lease, runs[:1] if lease.lead else runs):
                    pass

    def give_recalled_back(self) -> None:
        """Release recalled helpers that have no blocks left."""
        for lease in list(self._by_worker.values()):
            if lease.recalled and lease.prepared and not lease.blocks:
                self.release(lease, cancel=False)

    def put_back(self, lease: Lease, runs: Sequence[MethodRun]) -> None:
        """Let the blocks of a worker that will not do them wait again."""
        for method, block in lease.blocks:
            desk = runs[method].desk
            if desk is not None:
                desk.give_back([block])
        lease.blocks.clear()

    def release(self, lease: Lease, *, cancel: bool) -> None:
        """Give one worker back."""
        del self._by_worker[lease.worker]
        self._supply.release(lease.worker, cancel=cancel)

    def release_all(self, *, cancel: bool) -> None:
        """Give every worker back."""
        for lease in list(self._by_worker.values()):
            self.release(lease, cancel=cancel)

    def bury(self, worker: Worker, *, step: tuple[int, int]) -> Lease | None:
        """Strike a worker that is gone. Its blocks are still in the lease that is returned; None: it had gone back before.

        Args:
            worker: the worker.
            step: what it was at if it had no block.

        Raises:
            ServerUnavailable: WORKER_LOST; one step has cost too many workers.
        """
        lease = self._by_worker.pop(worker, None)
        if lease is None:
            return None
        self._losses += 1
        at = lease.blocks[0] if lease.blocks else step
        self._strikes[at] += 1
        if self._strikes[at] >= MAX_STRIKES or self._losses >= MAX_LOSSES:
            raise ServerUnavailable("WORKER_LOST", _WORKER_LOST, retry_after_s=5.0)
        return lease

    def watch(self, *, lead_at_work: Callable[[], bool]) -> None:
        """Kill workers that have work and are silent."""
        now = self._loop.time()
        for lease in list(self._by_worker.values()):
            if not (lease.blocks or not lease.prepared or (lease.lead and lead_at_work())):
                lease.worker.heard_at = now
            elif now - lease.worker.heard_at > self._silence_s:
                self._supply.condemn(lease.worker, "silent")

    def _hand_to(self, lease: Lease, runs: Sequence[MethodRun]) -> bool:
        for run in runs:
            block = None if run.desk is None or run.refusal() is not None else run.desk.take()
            if block is not None:
                if run.started_at is None:
                    run.started_at = self._loop.time()
                lease.blocks.append((run.index, block))
                lease.worker.send(worker_pb2.Command(evaluate=worker_pb2.Evaluate(method=run.index, block=block)))
                return True
        return False
