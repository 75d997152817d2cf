"""The pool of compute processes: a bounded queue, leases, and replacement of workers that are lost.

Light: runs in the front, so neither torch nor onnxruntime may be imported from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from voxplain.errors import LimitExceeded, ServerUnavailable
from voxplain.v1 import explain_pb2

from voxplain_server.workers.call import Call
from voxplain_server.workers.catalog import Catalog, CatalogEntry
from voxplain_server.workers.checkpoint import Checkpoint, bind_request, unpack_checkpoint
from voxplain_server.workers.crew import Crew
from voxplain_server.workers.events import PoolObserver, SilentObserver
from voxplain_server.workers.execution import differences, resolve_execution
from voxplain_server.workers.inference import Borrower, Inference, Inferred
from voxplain_server.workers.job import Job, JobEvent
from voxplain_server.workers.ledger import Ledger
from voxplain_server.workers.outbox import Outbox
from voxplain_server.workers.pool_settings import PoolSettings
from voxplain_server.workers.queue_place import QueuePlace
from voxplain_server.workers.transfer_clock import TransferClock
from voxplain_server.workers.worker import Worker

log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0
_DRAINED_WITHIN_S = 10.0


class WorkerPool:
    """Runs jobs on compute processes (a Runner).

    Each call leases one worker, its lead, and borrows idle ones for blocks of its plans until another call needs them.

    Args:
        settings: what the operator set.
        catalog: the models.
        observer: told of what happens; None: nobody.
        ledger: where it books what it takes; None: one of its own.
    """

    def __init__(
        self,
        *,
        settings: PoolSettings,
        catalog: Catalog,
        observer: PoolObserver | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._observer: PoolObserver = observer or SilentObserver()
        self.ledger = ledger or Ledger()
        self._key = settings.checkpoint_key or secrets.token_bytes(32)
        self._idle: list[Worker] = []
        self._away: set[Worker] = set()
        self._borrowed: set[Worker] = set()
        self._waiting: deque[QueuePlace] = deque()
        self._calls: list[Call] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._closed = False
        self._numbers = 0
        self._up = asyncio.Event()
        self._crew = Crew(settings, self._observer, on_up=self._welcome, on_down=self._miss)

    @property
    def queue_length(self) -> int:
        """Jobs that wait for a worker."""
        return len(self._waiting)

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the workers alive."""
        return self._crew.pids

    @property
    def idle_pids(self) -> tuple[int, ...]:
        """Process ids of the workers that wait for work."""
        return tuple(worker.pid for worker in self._idle)

    @property
    def busy_pids(self) -> tuple[int, ...]:
        """Process ids of the workers that run an inference."""
        return tuple(worker.pid for worker in self._borrowed)

    @property
    def leading_pids(self) -> tuple[int, ...]:
        """Process ids of the workers that lead a call."""
        return tuple(call.lead_pid for call in self._calls if call.lead_pid is not None)

    async def start(self) -> None:
        """Start every worker and wait until one of them is ready.

        Raises:
            ServerUnavailable: WORKERS_NOT_STARTED; none came up in time.
        """
        for slot in range(self._settings.workers):
            self._spawn(self._crew.keep(slot))
        try:
            async with asyncio.timeout(self._settings.start_s):
                await self._up.wait()
        except TimeoutError as error:
            await self.close()
            raise ServerUnavailable("WORKERS_NOT_STARTED", "no compute worker came up; see the server's log") from error

    async def run(self, job: Job) -> AsyncGenerator[JobEvent, None]:
        """As Runner.run.

        Raises:
            LimitExceeded: QUEUE_FULL, OUT_OF_MEMORY or JOB_TOO_LONG.
            CheckpointRefused: CHECKPOINT_INVALID.
            ServerUnavailable: SHUTTING_DOWN or WORKER_LOST.
            ModelNotFound: the job names a model that the catalogue lacks.
            VoxplainError: the worker refused the case.
        """
        began_at = asyncio.get_running_loop().time()
        self._check_open()
        # The catalogue may have changed since the client was told of its model.
        entry = job.entry or self._catalog.find(job.spec.model, job.spec.version)
        threads = self._settings.threads_per_worker
        execution = resolve_execution(entry.model, job.spec, engine=entry.engine, engines=entry.engines, threads=threads)
        binding = bind_request(entry.model.digest, job.spec, execution)
        checkpoint = self._read_checkpoint(job, binding)
        ticket = self._queue(entry)
        try:
            while not ticket.worker.done():
                position = self._waiting.index(ticket) if ticket in self._waiting else 0
                yield explain_pb2.Progress(stage=explain_pb2.Progress.STAGE_QUEUED, queue_position=position)
                await asyncio.wait([ticket.worker], timeout=self._settings.progress_s)
            lead = ticket.worker.result()
        except BaseException:
            self._leave_queue(ticket)
            raise
        finally:
            self.ledger.release("queue_places")
        self._observer.queue_wait_seconds(asyncio.get_running_loop().time() - began_at)
        self._numbers += 1
        outbox = Outbox()
        outbox.tell(explain_pb2.Progress(stage=explain_pb2.Progress.STAGE_PREPARING))
        call = Call(
            self._numbers,
            job,
            entry=entry,
            execution=execution,
            cautions=[*job.cautions, *differences(job.spec.execution, execution)],
            checkpoint=checkpoint,
            binding=binding,
            key=self._key,
            settings=self._settings,
            observer=self._observer,
            supply=self,
            ledger=self.ledger,
            outbox=outbox,
            ready=lead.ready.result(),
            began_at=began_at,
        )
        call.join(lead, lead=True)
        working = self.ledger.watch(asyncio.create_task(self._work(call, outbox)))
        transfer = TransferClock()
        try:
            while (event := await outbox.next()) is not None:
                transfer.fill_in(event)
                given_at = transfer.now()
                yield event
                transfer.note(event, given_at)
            await working
        finally:
            await self._stop(working, outbox)

    async def infer(self, asked: Inference) -> Inferred:
        """As Predictor.infer: it waits in line with the jobs, and has one worker to itself."""
        told, memory = await Borrower(asked, source=self, settings=self._settings).run()
        return Inferred(tuple(told.outputs), memory, told.seconds, on_close=self.ledger.lend("map_files"))

    async def drain(self, grace_s: float) -> None:
        """As Runner.drain. Calls that still wait end at once: another server can take them."""
        self._draining = True
        for ticket in [each for each in self._waiting if each.call is None]:
            self._waiting.remove(ticket)
            ticket.worker.set_exception(_shutting_down())
        await self._until_no_calls(grace_s)
        for call in self._calls:
            call.drain()
        await self._until_no_calls(_DRAINED_WITHIN_S)

    async def close(self) -> None:
        """End every worker process."""
        self._draining = self._closed = True
        for ticket in self._waiting:
            if not ticket.worker.done():
                ticket.worker.set_exception(_shutting_down())
        self._waiting.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._crew.end()
        for worker in list(self._away):
            self._back(worker)
        self._idle.clear()

    async def borrow(self, entry: CatalogEntry) -> tuple[int, Worker]:
        """As WorkerSource.borrow."""
        began_at = asyncio.get_running_loop().time()
        self._check_open()
        ticket = self._queue(entry)
        try:
            # Not awaited by itself: a cancellation would cancel the ticket and lose the worker that it may have got.
            await asyncio.wait([ticket.worker])
            worker = ticket.worker.result()
        except BaseException:
            self._leave_queue(ticket)
            raise
        finally:
            self.ledger.release("queue_places")
        self._observer.queue_wait_seconds(asyncio.get_running_loop().time() - began_at)
        self._numbers += 1
        self._borrowed.add(worker)
        return self._numbers, worker

    # What calls ask of the pool (LeadSupply).

    def replace_lead(self, call: Call) -> None:
        """As LeadSupply.replace_lead."""
        ticket = QueuePlace(call.entry, asyncio.get_running_loop().create_future(), call)
        self._waiting.appendleft(ticket)
        self._dispatch()

    def lend(self) -> None:
        """As LeadSupply.lend."""
        for call in self._calls:
            while self._idle and not self._waiting and call.wants_help():
                worker = self._best_for(call.entry)
                if worker is None:
                    break
                call.join(worker, lead=False)

    def release(self, worker: Worker, *, cancel: bool) -> None:
        """As Supply.release."""
        # At once, and not when the task starts: what comes in between would be closed by nobody.
        worker.detach()
        self._borrowed.discard(worker)
        self.ledger.watch(self._spawn(self._take_back(worker, cancel=cancel)))

    def condemn(self, worker: Worker, reason: str) -> None:
        """As Supply.condemn."""
        log.warning("worker_condemned", extra={"fields": {"pid": worker.pid, "reason": reason}})
        self._observer.restarts(reason)
        worker.condemned = True
        worker.condemn()

    # Workers.

    def _welcome(self, worker: Worker) -> None:
        self._up.set()
        self._free(worker)

    def _miss(self, worker: Worker) -> None:
        if worker in self._idle:
            self._idle.remove(worker)
        self._back(worker)

    async def _take_back(self, worker: Worker, *, cancel: bool) -> None:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        if await worker.dismiss(cancel=cancel, grace_s=self._settings.cancel_grace_s):
            if cancel:
                self._observer.cancel_to_stop_seconds(loop.time() - began_at)
            self._free(worker)
        elif not worker.gone.is_set():
            self.condemn(worker, "cancel")

    def _free(self, worker: Worker) -> None:
        if not worker.gone.is_set() and worker not in self._idle:
            self._back(worker)
            self._idle.append(worker)
            self._dispatch()

    # The queue.

    def _check_open(self) -> None:
        if self._draining:
            raise _shutting_down()

    def _queue(self, entry: CatalogEntry) -> QueuePlace:
        if not self._idle and len(self._waiting) >= self._settings.queue_limit:
            raise LimitExceeded("QUEUE_FULL", "too many calls wait already; try again", retry_after_s=_RETRY_SECONDS)
        ticket = QueuePlace(entry, asyncio.get_running_loop().create_future())
        self._waiting.append(ticket)
        self.ledger.acquire("queue_places")
        self._dispatch()
        return ticket

    def _leave_queue(self, ticket: QueuePlace) -> None:
        """The reader left before its call began."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        elif ticket.worker.done() and ticket.worker.exception() is None:
            self._free(ticket.worker.result())
        self._observer.queue_length(len(self._waiting))

    def _dispatch(self) -> None:
        for ticket in list(self._waiting):
            if not self._idle:
                break
            worker = None if ticket.worker.done() else self._best_for(ticket.entry)
            if worker is None and not ticket.worker.done():
                continue
            self._waiting.remove(ticket)
            if worker is None:
                continue
            if ticket.call is None:
                ticket.worker.set_result(worker)
            elif ticket.call in self._calls:
                ticket.call.join(worker, lead=True)
            else:
                self._back(worker)
                self._idle.append(worker)
        self._observer.queue_length(len(self._waiting))
        if not self._waiting:
            self.lend()
            return
        wanted = len(self._waiting)
        for call in reversed(self._calls):
            for _ in range(call.helpers):
                if wanted > 0:
                    call.recall()
                    wanted -= 1

    def _best_for(self, entry: CatalogEntry) -> Worker | None:
        """An idle worker, if possible one that holds the model already.

        None: the model has left the catalogue, so that its files may be gone, and those who hold it are busy.
        """
        digest = entry.model.digest
        worker = next((each for each in self._idle if digest in each.loaded), None)
        if worker is None:
            if not self._catalog.serves(entry) and any(digest in each.loaded for each in self._crew.workers):
                return None
            worker = self._idle[0]
        self._idle.remove(worker)
        self._away.add(worker)
        self.ledger.acquire("workers")
        return worker

    def _back(self, worker: Worker) -> None:
        if worker in self._away:
            self._away.discard(worker)
            self.ledger.release("workers")

    # Calls.

    async def _work(self, call: Call, outbox: Outbox) -> None:
        self._calls.append(call)
        self.ledger.acquire("jobs")
        try:
            await call.run()
        finally:
            self._calls.remove(call)
            self.ledger.release("jobs")
            outbox.end()

    async def _stop(self, working: asyncio.Task[None], outbox: Outbox) -> None:
        outbox.close()
        if not working.done():
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await working

    def _read_checkpoint(self, job: Job, binding: bytes) -> Checkpoint | None:
        if not job.spec.checkpoint:
            return None
        return unpack_checkpoint(job.spec.checkpoint, binding=binding, key=self._key, max_bytes=self._settings.checkpoint_bytes)

    async def _until_no_calls(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (self._calls or self._borrowed) and loop.time() < until:
            await asyncio.sleep(0.02)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _shutting_down() -> ServerUnavailable:
    return ServerUnavailable("SHUTTING_DOWN", "this server is stopping; ask another", retry_after_s=_RETRY_SECONDS)
