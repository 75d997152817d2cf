"""One running call on the front's side: hands out work, takes in scores and maps, and survives the loss of a worker."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from voxplain.errors import CheckpointRefused, InternalFault, LimitExceeded, ServerUnavailable
from voxplain.v1 import explain_pb2
from voxplain.worker.v1 import worker_pb2

from voxplain_server.models.description import model_to_json
from voxplain_server.workers.catalog import CatalogEntry
from voxplain_server.workers.checkpoint import Checkpoint
from voxplain_server.workers.events import PoolObserver
from voxplain_server.workers.faults import error_of
from voxplain_server.workers.job import Job, MapReady
from voxplain_server.workers.memory import close_all
from voxplain_server.workers.method_run import Ending, MethodRun
from voxplain_server.workers.outbox import Outbox
from voxplain_server.workers.pool_settings import PoolSettings
from voxplain_server.workers.progress import ProgressTeller
from voxplain_server.workers.record import make_record
from voxplain_server.workers.resume import inputs_of, restore
from voxplain_server.workers.score_board import ScoreBoard
from voxplain_server.workers.worker import Worker

BLOCKS_AHEAD = 2
"""Blocks that a worker has at one time, so that it never waits for the front."""
MAX_STRIKES = 2
"""How often one step may cost a worker before the call is given up: a case that kills workers must not kill them all."""
MAX_LOSSES = 8
_WORKER_LOST = "compute workers were lost over this call; try again"


class Supply(Protocol):
    """Where a call gets workers from, and gives them back to."""

    def replace_lead(self, call: Call) -> None:
        """Find a new lead, before all who wait; it comes by `Call.join`."""

    def release(self, worker: Worker, *, cancel: bool) -> None:
        """Take a worker back."""

    def condemn(self, worker: Worker, reason: str) -> None:
        """Kill a worker; the call hears of it by `lose`."""


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


@dataclass(frozen=True, slots=True, eq=False)
class _Heard:
    worker: Worker
    event: worker_pb2.Event
    descriptors: list[int]


@dataclass(frozen=True, slots=True, eq=False)
class _Lost:
    worker: Worker


@dataclass(frozen=True, slots=True, eq=False)
class _Joined:
    worker: Worker
    lead: bool


class Call:
    """A job at work. One task runs `run`; everything else reaches it through its mailbox.

    Args:
        number: names the call to workers; never 0.
        job: what is asked.
        entry: the model.
        execution: how the work is cut.
        cautions: what limits the answer so far.
        checkpoint: scores to go on from, authenticated but not yet compared with the tensors.
        binding: digest of the request, for checkpoints.
        key: the server's, for checkpoints.
        settings, observer, supply: the pool's.
        outbox: where events go.
        ready: what the workers compute with.
        began_at: event-loop time at which the job came.
    """

    def __init__(
        self,
        number: int,
        job: Job,
        *,
        entry: CatalogEntry,
        execution: explain_pb2.Execution,
        cautions: Sequence[explain_pb2.Caution],
        checkpoint: Checkpoint | None,
        binding: bytes,
        key: bytes,
        settings: PoolSettings,
        observer: PoolObserver,
        supply: Supply,
        outbox: Outbox,
        ready: worker_pb2.Ready,
        began_at: float,
    ) -> None:
        self.number = number
        self.job = job
        self.entry = entry
        self.execution = execution
        self.cautions = list(cautions)
        self.runs: list[MethodRun] = []
        self.board: ScoreBoard | None = None
        self.prepared: worker_pb2.Prepared | None = None
        self.results: list[explain_pb2.MethodResult] = []
        self.maps: list[explain_pb2.MapDigest] = []
        self.draining = False
        self._checkpoint = checkpoint
        self._settings = settings
        self._observer = observer
        self._supply = supply
        self._outbox = outbox
        self._ready = ready
        self._loop = asyncio.get_running_loop()
        self._mailbox: asyncio.Queue[_Heard | _Lost | _Joined | None] = asyncio.Queue()
        self._leases: dict[Worker, Lease] = {}
        self._current = 0
        self._strikes: Counter[tuple[int, int]] = Counter()
        self._losses = 0
        self._leads = 0
        self._help_refused = False
        self.began_at = began_at
        self._teller = ProgressTeller(self, settings, binding=binding, key=key)

    # What the pool calls.

    def join(self, worker: Worker, *, lead: bool) -> None:
        """Give the call a worker."""
        worker.lease(self.number, self)
        self._mailbox.put_nowait(_Joined(worker, lead))

    def hear(self, worker: Worker, event: worker_pb2.Event, descriptors: list[int]) -> None:
        """As Holder.hear."""
        self._mailbox.put_nowait(_Heard(worker, event, descriptors))

    def lose(self, worker: Worker) -> None:
        """As Holder.lose."""
        self._mailbox.put_nowait(_Lost(worker))

    def drain(self) -> None:
        """Stop at the next borders of blocks and end every method with what it has."""
        self.draining = True
        self._mailbox.put_nowait(None)

    def wants_help(self) -> bool:
        """Whether another worker would find blocks to compute."""
        if self._help_refused or self.board is None or self._stopping() is not None:
            return False
        unclaimed = sum(run.desk.waiting for run in self.runs[self._current :] if run.desk is not None and not run.finished)
        joining = sum(not lease.lead and not lease.prepared for lease in self._leases.values())
        return unclaimed > BLOCKS_AHEAD * (1 + joining)

    @property
    def helpers(self) -> int:
        """Workers beside the lead that were not recalled."""
        return sum(not lease.lead and not lease.recalled for lease in self._leases.values())

    def recall(self) -> None:
        """Give one helper back at the next border of its blocks."""
        for lease in self._leases.values():
            if not lease.lead and not lease.recalled:
                lease.recalled = True
                self._mailbox.put_nowait(None)
                return

    @property
    def workers(self) -> int:
        """Workers at work for it."""
        return len(self._leases)

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was handed to the pool."""
        return self._loop.time() - self.began_at

    def ready(self) -> worker_pb2.Ready:
        """What the workers compute with."""
        return self._ready

    async def run(self) -> None:
        """Work until the record is out.

        Raises:
            voxplain.errors.VoxplainError: the call as a whole failed.
        """
        done = False
        try:
            while self._current < len(self.runs) or self.prepared is None:
                await self._take(await self._next())
                self._give_recalled_back()
                await self._advance()
                self._hand_out()
                self._teller.tell(self._outbox)
                self._watch()
            record = make_record(self, self._ready)
            await self._outbox.deliver(record)
            done = True
        finally:
            for lease in list(self._leases.values()):
                self._supply.release(lease.worker, cancel=not done)
            self._leases.clear()
            self._drop_all()

    # Events.

    async def _next(self) -> _Heard | _Lost | _Joined | None:
        if not self._mailbox.empty():
            return self._mailbox.get_nowait()
        try:
            return await asyncio.wait_for(self._mailbox.get(), self._teller.seconds_to_next())
        except TimeoutError:
            return None

    async def _take(self, mail: _Heard | _Lost | _Joined | None) -> None:
        if isinstance(mail, _Joined):
            self._open(mail.worker, lead=mail.lead)
        elif isinstance(mail, _Lost):
            self._mourn(mail.worker)
        elif isinstance(mail, _Heard):
            lease = self._leases.get(mail.worker)
            try:
                if lease is not None:
                    await self._listen(lease, mail.event, mail.descriptors)
            finally:
                close_all(mail.descriptors)

    def _open(self, worker: Worker, *, lead: bool) -> None:
        self._leases[worker] = Lease(worker, lead)
        self._leads += lead
        spec = explain_pb2.ExplainSpec()
        spec.CopyFrom(self.job.spec)
        spec.ClearField("checkpoint")
        places = [worker_pb2.Place(header=each.header, offset=each.offset, size=each.size) for each in self.job.tensors]
        command = worker_pb2.Open(
            spec=spec,
            tensors=places,
            model_json=model_to_json(self.entry.model, self.entry.traits),
            execution=self.execution,
            lead=lead,
            max_loaded_models=self._settings.max_loaded_models,
        )
        worker.note_loaded(self.entry.model.digest, most=self._settings.max_loaded_models)
        worker.send(worker_pb2.Command(open=command), [self.job.memory])

    async def _listen(self, lease: Lease, event: worker_pb2.Event, descriptors: list[int]) -> None:
        kind = event.WhichOneof("event")
        if kind == "prepared":
            await self._note_prepared(lease, event.prepared)
        elif kind == "block_done":
            self._note_block(lease, event.block_done)
        elif kind == "advanced":
            self.runs[event.advanced.method].passes = event.advanced.passes
        elif kind == "map_made" and descriptors:
            await self._note_map(event.map_made, descriptors)
        elif kind == "estimated":
            await self._note_estimate(event.estimated)
        elif kind == "failed":
            self._note_failure(lease, event.failed)

    async def _note_prepared(self, lease: Lease, prepared: worker_pb2.Prepared) -> None:
        lease.prepared = True
        if lease.lead and self.prepared is None:
            await self._begin(prepared)
        elif lease.lead and self.prepared is not None and list(prepared.outlines) != list(self.prepared.outlines):
            raise InternalFault("PLANS_DIFFER", "two workers planned this call differently; please report it")
        if self.board is not None:
            attach = worker_pb2.Attach(evaluations=self.board.evaluations)
            lease.worker.send(worker_pb2.Command(attach=attach), [self.board.descriptor])

    async def _begin(self, prepared: worker_pb2.Prepared) -> None:
        self.prepared = prepared
        for index, (method, outline) in enumerate(zip(self.job.spec.methods, prepared.outlines, strict=True)):
            name = (method.WhichOneof("method") or "").replace("_", "-")
            self.runs.append(MethodRun(index=index, key=method.key, name=name, outline=outline, budget=self.job.spec.budget))
        self.cautions.extend(prepared.cautions)
        self.board = ScoreBoard.create([run.planned if run.desk is not None else 0 for run in self.runs])
        if self._checkpoint is not None:
            if self._checkpoint.inputs != inputs_of(prepared, self._ready):
                told = "the tensors or the server's packages are not those of the checkpoint; leave it out to start anew"
                raise CheckpointRefused("CHECKPOINT_INVALID", told, field="checkpoint")
            self._observer.saved(reason="checkpoint", count=restore(self._checkpoint, self.runs, self.board))
            self._checkpoint = None
        self._observer.batch_size(self.execution.batch_size)
        await self._outbox.deliver(prepared.prediction)

    def _note_block(self, lease: Lease, told: worker_pb2.BlockDone) -> None:
        run = self.runs[told.method]
        if (told.method, told.block) in lease.blocks:
            lease.blocks.remove((told.method, told.block))
        run.compute_seconds += told.seconds
        self._observer.evaluations(method=run.name, engine=self.entry.engine, count=told.evaluated)
        if told.saved:
            self._observer.saved(reason="unchanged", count=told.saved)
        if run.desk is not None and self.board is not None and run.desk.finish(told.block, saved=told.saved):
            self.board.done(run.index)[run.desk.starts[told.block] : run.desk.stops[told.block]] = True

    async def _note_map(self, told: worker_pb2.MapMade, descriptors: list[int]) -> None:
        header = explain_pb2.Map()
        header.CopyFrom(told.header)
        # A new lead counts its maps from the beginning; what the first one sent keeps its name.
        header.id = f"{self._leads}-{header.id}"
        if header.labels_id:
            header.labels_id = f"{self._leads}-{header.labels_id}"
        ready = MapReady(header=header, memory=descriptors.pop(), sha256=told.sha256)
        if header.snapshot or header.quantity == explain_pb2.QUANTITY_LABELS:
            await self._outbox.deliver(ready)
        else:
            run = next(each for each in self.runs if each.key == header.method_key)
            run.maps.append(ready)

    async def _note_estimate(self, told: worker_pb2.Estimated) -> None:
        run = self.runs[told.method]
        run.asked = None
        run.compute_seconds += told.seconds
        run.estimate_seconds = told.seconds
        run.estimated_at = self._loop.time()
        error = told.result.standard_error if told.result.HasField("standard_error") else None
        run.standard_error, run.has_error = error, error is not None
        if told.want == worker_pb2.WANT_ERROR and run.review_due() is not None and run.reviewing:
            run.note_review(error)
        run.reviewing = False
        if told.want == worker_pb2.WANT_FINAL:
            self.cautions.extend(told.cautions)
            if run.desk is None:
                run.passes, saved = told.result.evaluations_done, told.result.evaluations_saved
                self._observer.evaluations(method=run.name, engine=told.result.engine, count=run.passes - saved)
                if saved:
                    self._observer.saved(reason="shared", count=saved)
            await self._finish(run, run.chosen or Ending(explain_pb2.OUTCOME_COMPLETED), told.result)

    def _note_failure(self, lease: Lease, failed: worker_pb2.Failed) -> None:
        if not failed.HasField("method"):
            if not lease.lead:
                # The lead goes on alone; whatever is wrong with the call, it will say so itself.
                self._help_refused = True
                self._put_back(lease)
                self._leases.pop(lease.worker, None)
                self._supply.release(lease.worker, cancel=True)
                return
            raise error_of(failed)
        run = self.runs[failed.method]
        if failed.HasField("block") and (failed.method, failed.block) in lease.blocks:
            lease.blocks.remove((failed.method, failed.block))
        run.asked = None
        if not run.interrupted:
            run.failure = failed
        if run.desk is not None:
            run.desk.stop()

    # Workers that go.

    def _mourn(self, worker: Worker) -> None:
        lease = self._leases.pop(worker, None)
        if lease is None:
            return
        self._losses += 1
        step = lease.blocks[0] if lease.blocks else (self._current, -1)
        self._strikes[step] += 1
        if self._strikes[step] >= MAX_STRIKES or self._losses >= MAX_LOSSES:
            raise ServerUnavailable("WORKER_LOST", _WORKER_LOST, retry_after_s=5.0)
        self._put_back(lease)
        if lease.lead:
            for run in self.runs:
                run.asked, run.reviewing = None, False
                close_all([ready.memory for ready in run.maps])
                run.maps.clear()
            self._supply.replace_lead(self)

    def _put_back(self, lease: Lease) -> None:
        for method, block in lease.blocks:
            desk = self.runs[method].desk
            if desk is not None:
                desk.give_back([block])
        lease.blocks.clear()

    def _give_recalled_back(self) -> None:
        for lease in list(self._leases.values()):
            if lease.recalled and lease.prepared and not lease.blocks:
                del self._leases[lease.worker]
                self._supply.release(lease.worker, cancel=False)

    def _watch(self) -> None:
        """Kill workers that have work and are silent, and end a call that takes too long."""
        now = self._loop.time()
        for lease in list(self._leases.values()):
            at_work = lease.blocks or not lease.prepared or (lease.lead and any(run.asked for run in self.runs))
            if not at_work:
                lease.worker.heard_at = now
            elif now - lease.worker.heard_at > self._settings.silence_s:
                self._supply.condemn(lease.worker, "silent")
        if now - self.began_at > self._settings.job_seconds:
            raise LimitExceeded("JOB_TOO_LONG", "the call computed longer than this server allows; set a budget")

    # What to do next.

    @property
    def _lead(self) -> Lease | None:
        return next((lease for lease in self._leases.values() if lease.lead and lease.prepared), None)

    def _stopping(self) -> Ending | None:
        if self.draining:
            return Ending(explain_pb2.OUTCOME_DRAINED, "SHUTTING_DOWN", "the server is stopping; go on from the checkpoint")
        if self.job.deadline_s is not None and self._loop.time() >= self.job.deadline_s:
            return Ending(explain_pb2.OUTCOME_DEADLINE, "SOFT_DEADLINE", "the soft deadline has passed")
        return None

    async def _advance(self) -> None:
        """Bring the current method forward as far as it goes without waiting."""
        while self._current < len(self.runs):
            run, lead = self.runs[self._current], self._lead
            if not run.finished and lead is not None:
                await (self._advance_gradient(run, lead) if run.desk is None else self._advance_perturbation(run, lead))
            if not run.finished:
                return
            self._current += 1

    async def _advance_gradient(self, run: MethodRun, lead: Lease) -> None:
        refusal, stopping = run.refusal(), self._stopping()
        if refusal is not None:
            await self._finish(run, refusal, None)
        elif stopping is not None and run.asked is None:
            outcome = stopping.outcome if run.interrupted else explain_pb2.OUTCOME_SKIPPED
            await self._finish(run, Ending(outcome, stopping.reason, stopping.description), None)
        elif stopping is not None and not run.interrupted:
            run.interrupted = True
            lead.worker.send(worker_pb2.Command(cancel=worker_pb2.Cancel(method=run.index)))
        elif run.asked is None:
            run.started_at = self._loop.time()
            run.asked = worker_pb2.WANT_FINAL
            lead.worker.send(worker_pb2.Command(attribute=worker_pb2.Attribute(method=run.index)))

    async def _advance_perturbation(self, run: MethodRun, lead: Lease) -> None:
        refusal, stopping, desk = run.refusal(), self._stopping(), run.desk
        if refusal is not None:
            await self._finish(run, refusal, None)
            return
        if run.asked is not None or desk is None:
            return
        review, ending = run.review_due(), run.ending()
        if review is not None:
            run.reviewing = True
            self._ask(run, lead, worker_pb2.WANT_ERROR, review)
        elif ending is not None:
            self._ask_final(run, lead, ending)
        elif stopping is not None:
            desk.stop()
            if any(method == run.index for lease in self._leases.values() for method, _ in lease.blocks):
                return
            if desk.blocks_done:
                self._ask_final(run, lead, stopping)
            else:
                skipped = Ending(explain_pb2.OUTCOME_SKIPPED, stopping.reason, stopping.description)
                await self._finish(run, skipped, None)
        elif want := self._early_look(run):
            run.blocks_shown = desk.blocks_done
            self._ask(run, lead, want, None)

    def _early_look(self, run: MethodRun) -> worker_pb2.Want.ValueType | None:
        """Whether a snapshot or the standard error is due."""
        desk, now, spec = run.desk, self._loop.time(), self.job.spec
        if desk is None or desk.blocks_done <= run.blocks_shown:
            return None
        if spec.HasField("snapshot_interval") and not self._outbox.snapshot_waits:
            pause = max(spec.snapshot_interval.ToNanoseconds() / 1e9, 2 * run.estimate_seconds)
            if now - run.snapshot_at >= pause:
                run.snapshot_at = now
                return worker_pb2.WANT_SNAPSHOT
        pause = max(self._settings.estimate_s, 20 * run.estimate_seconds)
        if run.has_error and now - max(run.estimated_at, run.started_at or now) >= pause:
            return worker_pb2.WANT_ERROR
        return None

    def _ask_final(self, run: MethodRun, lead: Lease, ending: Ending) -> None:
        run.chosen = ending
        if run.desk is not None:
            run.desk.stop()
        self._ask(run, lead, worker_pb2.WANT_FINAL, ending.first_blocks)

    def _ask(self, run: MethodRun, lead: Lease, want: worker_pb2.Want.ValueType, first_blocks: int | None) -> None:
        run.asked = want
        command = worker_pb2.Estimate(method=run.index, want=want, first_blocks=first_blocks)
        lead.worker.send(worker_pb2.Command(estimate=command))

    def _hand_out(self) -> None:
        if self._stopping() is not None or self._current >= len(self.runs):
            return
        for lease in self._leases.values():
            if lease.prepared and not lease.recalled:
                # The lead keeps to the method whose result is due; helpers work ahead.
                runs = self.runs[self._current : self._current + 1] if lease.lead else self.runs[self._current :]
                while len(lease.blocks) < BLOCKS_AHEAD and self._hand_to(lease, runs):
                    pass

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

    async def _finish(self, run: MethodRun, ending: Ending, told: explain_pb2.MethodResult | None) -> None:
        run.finished = True
        result = run.result(told, ending, began_at=self.began_at, engine=self.entry.engine)
        while run.maps:
            ready = run.maps.pop(0)
            header = ready.header
            self.maps.append(
                explain_pb2.MapDigest(
                    method_key=run.key, quantity=header.quantity, modalities=header.modalities, sha256=ready.sha256
                )
            )
            await self._outbox.deliver(ready)
        if ending.outcome == explain_pb2.OUTCOME_DRAINED:
            self._teller.tell_checkpoint(self._outbox)
        self.results.append(result)
        await self._outbox.deliver(result)

    def _drop_all(self) -> None:
        while not self._mailbox.empty():
            mail = self._mailbox.get_nowait()
            if isinstance(mail, _Heard):
                close_all(mail.descriptors)
            elif isinstance(mail, _Joined):
                self._supply.release(mail.worker, cancel=True)
        for run in self.runs:
            close_all([ready.memory for ready in run.maps])
            run.maps.clear()
        if self.board is not None:
            self.board.close()
