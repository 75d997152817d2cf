"""One running call on the front's side: hands out work, takes in scores and maps, and survives the loss of a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from voxplain.errors import CheckpointRefused, InternalFault, LimitExceeded
from voxplain.v1 import explain_pb2
from voxplain.worker.v1 import worker_pb2

from voxplain_server.workers.catalog import CatalogEntry
from voxplain_server.workers.checkpoint import Checkpoint
from voxplain_server.workers.events import PoolObserver, tell_block
from voxplain_server.workers.faults import error_of
from voxplain_server.workers.job import Job, MapReady
from voxplain_server.workers.lead_supply import LeadSupply
from voxplain_server.workers.leases import BLOCKS_AHEAD, Lease, Leases
from voxplain_server.workers.ledger import Ledger
from voxplain_server.workers.mailbox import Heard, Joined, Lost, Mailbox
from voxplain_server.workers.memory import close_all, create_memory
from voxplain_server.workers.method_run import Ending, MethodRun, runs_of
from voxplain_server.workers.next_step import Action, Moment, Step, next_step
from voxplain_server.workers.open_command import open_command
from voxplain_server.workers.outbox import Outbox
from voxplain_server.workers.pool_settings import PoolSettings
from voxplain_server.workers.progress import ProgressTeller
from voxplain_server.workers.record import digest_of, make_record
from voxplain_server.workers.resume import cuts_of, inputs_of, restore
from voxplain_server.workers.score_board import ScoreBoard
from voxplain_server.workers.worker import Worker


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
        settings, observer, supply, ledger: the pool's.
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
        supply: LeadSupply,
        ledger: Ledger,
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
        self._ledger = ledger
        self._outbox = outbox
        self._ready = ready
        self._loop = asyncio.get_running_loop()
        self._mailbox = Mailbox()
        self._labels = create_memory(0)
        self._snapshots = job.spec.HasField("snapshot_interval")
        self._leases = Leases(supply, silence_s=settings.silence_s)
        self._current = 0
        self._help_refused = False
        self._predicted = False
        self.began_at = began_at
        self._opened_at = self._loop.time()
        self._teller = ProgressTeller(self, settings, binding=binding, key=key)

    # What the pool calls.

    def join(self, worker: Worker, *, lead: bool) -> None:
        """Give the call a worker."""
        worker.lease(self.number, self)
        self._mailbox.put(Joined(worker, lead))

    def hear(self, worker: Worker, event: worker_pb2.Event, descriptors: list[int]) -> None:
        """As Holder.hear."""
        self._mailbox.put(Heard(worker, event, descriptors))

    def lose(self, worker: Worker) -> None:
        """As Holder.lose."""
        self._mailbox.put(Lost(worker))

    def drain(self) -> None:
        """Stop at the next borders of blocks and end every method with what it has."""
        self.draining = True
        self._mailbox.put(None)

    def wants_help(self) -> bool:
        """Whether another worker would find blocks to compute."""
        if self._help_refused or self.board is None or self._stopping() is not None:
            return False
        runs = self.runs[self._current :]
        unclaimed = sum(run.desk.waiting for run in runs if run.desk is not None and not run.finished)
        return unclaimed > BLOCKS_AHEAD * (1 + self._leases.joining)

    @property
    def helpers(self) -> int:
        """Workers beside the lead that were not recalled."""
        return self._leases.helpers

    def recall(self) -> None:
        """Give one helper back at the next border of its blocks."""
        if self._leases.recall():
            self._mailbox.put(None)

    @property
    def lead_pid(self) -> int | None:
        """Process id of the lead; None while there is none."""
        lead = self._leases.lead
        return None if lead is None else lead.worker.pid

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
                await self._take(await self._mailbox.next(self._teller.seconds_to_next()))
                self._leases.give_recalled_back()
                await self._advance()
                if self._stopping() is None:
                    self._leases.hand_out(self.runs[self._current :], snapshots=self._snapshots)
                self._teller.tell(self._outbox)
                self._leases.watch(lead_at_work=lambda: any(run.asked for run in self.runs))
                if self._loop.time() - self._opened_at > self._settings.job_seconds:
                    raise LimitExceeded("JOB_TOO_LONG", "the call computed longer than this server allows; set a budget")
            await self._outbox.deliver(make_record(self, self._ready))
            done = True
        finally:
            self._leases.release_all(cancel=not done)
            self._drop_all()

    # Events.

    async def _take(self, mail: Heard | Lost | Joined | None) -> None:
        if isinstance(mail, Joined):
            self._open(mail.worker, lead=mail.lead)
        elif isinstance(mail, Lost):
            self._mourn(mail.worker)
        elif isinstance(mail, Heard):
            lease = self._leases.of(mail.worker)
            try:
                if lease is not None:
                    await self._listen(lease, mail.event, mail.descriptors)
            finally:
                close_all(mail.descriptors)

    def _open(self, worker: Worker, *, lead: bool) -> None:
        self._leases.add(worker, lead=lead)
        worker.note_loaded(self.entry.model.digest, most=(most := self._settings.max_loaded_models))
        command = open_command(self.job, self.entry, self.execution, lead=lead, max_loaded_models=most)
        worker.send(worker_pb2.Command(open=command), [self.job.memory, self._labels])

    async def _listen(self, lease: Lease, event: worker_pb2.Event, descriptors: list[int]) -> None:
        kind = event.WhichOneof("event")
        if kind == "answered":
            await self._predict(event.answered.prediction)
        elif kind == "prepared":
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
        elif lease.lead and self.prepared is not None and cuts_of(prepared) != cuts_of(self.prepared):
            raise InternalFault("PLANS_DIFFER", "two workers planned this call differently; please report it")
        if self.board is not None:
            attach = worker_pb2.Attach(evaluations=self.board.evaluations)
            lease.worker.send(worker_pb2.Command(attach=attach), [self.board.descriptor])

    async def _begin(self, prepared: worker_pb2.Prepared) -> None:
        self.prepared = prepared
        self.runs.extend(runs_of(self.job.spec, prepared.outlines))
        self.cautions.extend(prepared.cautions)
        self.board = ScoreBoard.create([run.planned if run.desk is not None else 0 for run in self.runs])
        self._ledger.acquire("score_boards")
        if self._checkpoint is not None:
            if self._checkpoint.inputs != inputs_of(prepared, self._ready):
                told = "the tensors or the server's packages are not those of the checkpoint; leave it out to start anew"
                raise CheckpointRefused("CHECKPOINT_INVALID", told, field="checkpoint")
            self._observer.saved(reason="checkpoint", count=restore(self._checkpoint, self.runs, self.board))
            self._checkpoint = None
        self._supply.lend()

    async def _predict(self, prediction: explain_pb2.Prediction) -> None:
        """Tell the prediction once, whichever lead comes to it first."""
        if not self._predicted:
            self._predicted = True
            await self._outbox.deliver(prediction)

    def _note_block(self, lease: Lease, told: worker_pb2.BlockDone) -> None:
        run = self.runs[told.method]
        if (told.method, told.block) in lease.blocks:
            lease.blocks.remove((told.method, told.block))
        run.compute_seconds += told.seconds
        self._observer.evaluations(method=run.name, engine=self.execution.engine, count=told.evaluated)
        tell_block(self._observer, told)
        if run.desk is not None and self.board is not None and run.desk.finish(told.block, saved=told.saved):
            self.board.done(run.index)[run.desk.starts[told.block] : run.desk.stops[told.block]] = True

    async def _note_map(self, told: worker_pb2.MapMade, descriptors: list[int]) -> None:
        header = told.header
        # A new lead counts its maps from the beginning; what the first one sent keeps its name.
        header.id = f"{self._leases.leads}-{header.id}"
        if header.labels_id:
            header.labels_id = f"{self._leases.leads}-{header.labels_id}"
        held = self._ledger.lend("map_files")
        ready = MapReady(header=header, memory=descriptors.pop(), sha256=told.sha256, on_close=held)
        if header.snapshot or header.quantity == explain_pb2.QUANTITY_LABELS:
            await self._outbox.deliver(ready)
        else:
            run = next(each for each in self.runs if each.key == header.method_key)
            run.maps.append(ready)

    async def _note_estimate(self, told: worker_pb2.Estimated) -> None:
        run = self.runs[told.method]
        error = told.result.standard_error if told.result.HasField("standard_error") else None
        run.note_estimate(error, seconds=told.seconds, now=self._loop.time())
        if told.evaluated:
            self._observer.evaluations(method=run.name, engine=self.execution.engine, count=told.evaluated)
        if told.want != worker_pb2.WANT_FINAL:
            return
        self.cautions.extend(told.cautions)
        if run.desk is None:
            run.passes, saved = told.result.evaluations_done, told.result.evaluations_saved
            self._observer.evaluations(method=run.name, engine=told.result.engine, count=run.passes - saved)
            if saved:
                self._observer.saved(reason="shared", count=saved)
            if run.passes >= run.planned:
                run.chosen = None  # It was done before the interruption reached it.
        await self._finish(run, run.chosen or Ending(explain_pb2.OUTCOME_COMPLETED), told.result)

    def _note_failure(self, lease: Lease, failed: worker_pb2.Failed) -> None:
        if not failed.HasField("method"):
            if not lease.lead:
                # The lead goes on alone; whatever is wrong with the call, it will say so itself.
                self._help_refused = True
                self._leases.put_back(lease, self.runs)
                self._leases.release(lease, cancel=True)
                return
            raise error_of(failed)
        run = self.runs[failed.method]
        if failed.HasField("block") and (failed.method, failed.block) in lease.blocks:
            lease.blocks.remove((failed.method, failed.block))
        if run.desk is None and run.asked is not None and run.started_at is not None:
            run.compute_seconds += self._loop.time() - run.started_at
        run.asked = None
        if not run.interrupted:
            run.failure = failed
        if run.desk is not None:
            run.desk.stop()

    # Workers that go.

    def _mourn(self, worker: Worker) -> None:
        lease = self._leases.bury(worker, step=(self._current, -1))
        if lease is None:
            return
        self._leases.put_back(lease, self.runs)
        if lease.lead:
            for run in self.runs:
                run.asked, run.reviewing = None, False
                run.drop_maps()
            self._supply.replace_lead(self)

    # What to do next.

    def _stopping(self) -> Ending | None:
        if self.draining:
            return Ending(explain_pb2.OUTCOME_DRAINED, "SHUTTING_DOWN", "the server is stopping; go on from the checkpoint")
        if self.job.deadline_s is not None and self._loop.time() >= self.job.deadline_s:
            return Ending(explain_pb2.OUTCOME_DEADLINE, "SOFT_DEADLINE", "the soft deadline has passed")
        return None

    async def _advance(self) -> None:
        """Bring the current method forward as far as it goes without waiting."""
        while self._current < len(self.runs):
            run, lead = self.runs[self._current], self._leases.lead
            if not run.finished and lead is not None:
                await self._take_step(run, lead, next_step(run, self._moment(run)))
            if not run.finished:
                return
            self._current += 1

    def _moment(self, run: MethodRun) -> Moment:
        spec = self.job.spec
        wanted = self._snapshots and not self._outbox.snapshot_waits
        run.snapshot_at = max(run.snapshot_at, self._outbox.snapshot_left_at)
        return Moment(
            now=self._loop.time(),
            stopping=self._stopping(),
            blocks_out=self._leases.has_blocks_of(run.index),
            snapshot_pause_s=spec.snapshot_interval.ToNanoseconds() / 1e9 if wanted else None,
            estimate_pause_s=self._settings.estimate_s,
        )

    async def _take_step(self, run: MethodRun, lead: Lease, step: Step) -> None:
        if step.action is Action.FINISH and step.ending is not None:
            await self._finish(run, step.ending, None)
        elif step.action is Action.ATTRIBUTE:
            run.started_at = self._loop.time()
            run.asked = worker_pb2.WANT_FINAL
            lead.worker.send(worker_pb2.Command(attribute=worker_pb2.Attribute(method=run.index)))
        elif step.action is Action.INTERRUPT:
            run.interrupted, run.chosen = True, step.ending
            self._leases.interrupt(run.index)
        elif step.action is Action.ESTIMATE:
            run.ask(step.want, ending=step.ending, review=step.review)
            asked = worker_pb2.Estimate(method=run.index, want=step.want, first_blocks=step.first_blocks)
            asked.failed.extend(each.index for each in self.runs if each.failure is not None)
            lead.worker.send(worker_pb2.Command(estimate=asked))

    async def _finish(self, run: MethodRun, ending: Ending, told: explain_pb2.MethodResult | None) -> None:
        run.finished = True
        if told is None:
            # What a lost or failed lead has sent of this method is not whole.
            run.drop_maps()
        engine = self.prepared.prediction.plans[run.index].engine if self.prepared is not None else self.execution.engine
        result = run.result(told, ending, began_at=self.began_at, engine=engine)
        while run.maps:
            ready = run.maps.pop(0)
            self.maps.append(digest_of(ready))
            await self._outbox.deliver(ready)
        if ending.outcome == explain_pb2.OUTCOME_DRAINED or (ending.outcome == explain_pb2.OUTCOME_FAILED and run.done):
            # What is computed is not lost: a later call goes on from there.
            self._teller.tell_checkpoint(self._outbox)
        self.results.append(result)
        await self._outbox.deliver(result)

    def _drop_all(self) -> None:
        for worker in self._mailbox.empty():
            self._supply.release(worker, cancel=True)
        for run in self.runs:
            run.drop_maps()
        close_all([self._labels])
        if self.board is not None:
            self.board.close()
            self._ledger.release("score_boards")
