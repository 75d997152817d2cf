"""ExplainService: one call, from the spec to the record."""

from __future__ import annotations

import asyncio
import secrets
import time
import traceback
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing, closing
from typing import cast

import grpc
import grpc.aio
from voxplain.errors import InternalFault, VoxplainError
from voxplain.v1 import explain_pb2

from voxplain_server.service.admission import Admission, Ticket
from voxplain_server.service.call_observer import CallObserver
from voxplain_server.service.case_files import CaseFiles
from voxplain_server.service.check_spec import CheckedSpec, check_spec
from voxplain_server.service.deadline import check_deadline, stop_at
from voxplain_server.service.receive import Context, Upload, lay_out, read_spec
from voxplain_server.service.send import Outlet
from voxplain_server.service.spans import RECEIVE, NoSpans, Tracer
from voxplain_server.service.stage_tracking import StageTracking
from voxplain_server.service.status import abort_with, conceal
from voxplain_server.service.turns import Turns
from voxplain_server.settings import Limits
from voxplain_server.workers.catalog import Catalog
from voxplain_server.workers.job import Job, JobEvent, MapReady, Runner
from voxplain_server.workers.ledger import Ledger

SERVICE = explain_pb2.DESCRIPTOR.services_by_name["ExplainService"].full_name


class Explanations:
    """Serves Explain.

    Args:
        catalog: the models.
        runner: computes.
        admission: lets calls in.
        limits: what one call may take.
        observer: told of calls.
        tracer: told of their stages; None: nobody.
        ledger: where they book what they take; None: one of their own.
        files: where cases lie; None: each in a fresh one.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        runner: Runner,
        admission: Admission,
        limits: Limits,
        observer: CallObserver,
        tracer: Tracer | None = None,
        ledger: Ledger | None = None,
        files: CaseFiles | None = None,
    ) -> None:
        self._catalog = catalog
        self._runner = runner
        self._admission = admission
        self._limits = limits
        self._observer = observer
        self._tracer: Tracer = tracer or NoSpans()
        self._ledger = ledger or Ledger()
        self._files = files or CaseFiles(self._ledger)
        self._turns = Turns()

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server registers. Messages stay bytes: protobuf would copy every chunk twice more."""
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(
            self.explain,
            request_deserializer=None,
            response_serializer=None,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Explain": method})

    async def explain(self, _: object, context: Context) -> None:
        """Serve one call; every fault leaves as a status with typed details, and nothing stays reserved."""
        began, explanation_id = time.monotonic(), secrets.token_hex(8)
        call: _Call | None = None
        self._ledger.acquire("handlers")
        try:
            with ExitStack() as held:
                call = await self._let_in(context, explanation_id, held)
                await call.run()
        except Exception as fault:
            error = conceal(fault, self._observer, explanation_id=explanation_id)
        else:
            return
        finally:
            self._ledger.release("handlers")
        try:
            await abort_with(context, error)
        finally:
            if call is None and error.retry_after_s is not None:
                self._observer.turned_away(time.monotonic() - began)

    async def _let_in(self, context: Context, explanation_id: str, held: ExitStack) -> _Call:
        known_model = ""
        try:
            # Before anything of it is read: many come again and again while the queue is full.
            self._admission.check_room()
            spec = await read_spec(context, self._limits)
            arrived_ns = time.time_ns()
            checked = check_spec(spec, self._catalog, self._limits)
            known_model = checked.entry.model.name
            check_deadline(checked.spec, checked.expected, checked.evaluations, seconds_left=context.time_remaining())
            ticket = held.enter_context(self._admission.admit(checked.reserved_bytes))
        except VoxplainError as refusal:
            self._observer.call_refused(model=known_model, reason=refusal.reason, code=refusal.code.name)
            raise
        return _Call(
            context=context,
            checked=checked,
            ticket=ticket,
            explanation_id=explanation_id,
            arrived_ns=arrived_ns,
            runner=self._runner,
            limits=self._limits,
            observer=self._observer,
            tracer=self._tracer,
            ledger=self._ledger,
            files=self._files,
            turns=self._turns,
        )


class _Call:
    """An admitted call."""

    def __init__(
        self,
        *,
        context: Context,
        checked: CheckedSpec,
        ticket: Ticket,
        explanation_id: str,
        arrived_ns: int,
        runner: Runner,
        limits: Limits,
        observer: CallObserver,
        tracer: Tracer,
        ledger: Ledger,
        files: CaseFiles,
        turns: Turns,
    ) -> None:
        self._ledger = ledger
        self._context = context
        self._checked = checked
        self._ticket = ticket
        self._id = explanation_id
        self._arrived_ns = arrived_ns
        self._runner = runner
        self._observer = observer
        self._places = lay_out(checked.spec.tensors)
        self._outlet = Outlet(context, stall_seconds=limits.send_stall_seconds, observer=observer, freshen=self._freshen)
        self._finished: set[str] = set()
        self._drained = False
        self._methods = {method.key: _method_name(method.WhichOneof("method")) for method in checked.spec.methods}
        self._spans = tracer.begin(
            context.invocation_metadata() or (),
            explanation_id=explanation_id,
            model=checked.entry.model.name,
            version=checked.entry.model.version,
            methods=len(self._methods),
        )
        wants_snapshots = checked.spec.HasField("snapshot_interval")
        self._stages = StageTracking(
            self._spans, self._methods, on_first_map=observer.first_map if wants_snapshots else lambda seconds: None
        )
        # Last, so that nothing that fails before leaves it open.
        self._upload = Upload(context, self._places, limits=limits, observer=observer, files=files, turns=turns)

    async def run(self) -> None:
        """Answer from Accepted to Summary, and tell the observer how it ended."""
        with closing(self._upload):
            await self._run()

    async def _run(self) -> None:
        begin = time.monotonic()
        model = self._checked.entry.model
        names = tuple(self._methods.values())
        self._observer.call_started(
            explanation_id=self._id,
            model=model.name,
            version=model.version,
            methods=names,
            tensors=len(self._places),
        )
        outcome, reason = "failed", "INTERNAL_ERROR"
        try:
            await self._answer()
            outcome, reason = ("drained", "SHUTTING_DOWN") if self._drained else ("completed", "")
        except asyncio.CancelledError:
            outcome, reason = "cancelled", "CANCELLED"
            raise
        except VoxplainError as error:
            reason = error.reason
            raise
        finally:
            self._spans.end(outcome=outcome, reason=reason)
            self._observer.call_ended(
                explanation_id=self._id,
                model=model.name,
                version=model.version,
                methods=names,
                unfinished=tuple(name for key, name in self._methods.items() if key not in self._finished),
                outcome=outcome,
                reason=reason,
                seconds=time.monotonic() - begin,
                bytes_received=self._upload.bytes_received,
                bytes_sent=self._outlet.bytes_sent,
            )

    async def _answer(self) -> None:
        await self._outlet.send(explain_pb2.ExplainResponse(accepted=self._accepted()))
        self._spans.enter(RECEIVE)
        try:
            async with asyncio.TaskGroup() as tasks:
                telling = self._ledger.watch(tasks.create_task(self._outlet.keep_telling()))
                await self._upload.receive()
                self._spans.note(bytes=self._upload.bytes_received)
                # At once: clients show an upload as done when the server says that it is.
                await self._outlet.send_progress(explain_pb2.Progress(stage=explain_pb2.Progress.STAGE_PREPARING))
                watching = self._ledger.watch(tasks.create_task(self._upload.watch_the_rest()))
                await self._compute()
                telling.cancel()
                watching.cancel()
        except BaseExceptionGroup as several:
            # Whichever fault came first ended the others. The task group's own frame would keep all of them, and itself.
            traceback.clear_frames(several.__traceback__)
            raise several.exceptions[0] from None

    async def _compute(self) -> None:
        events = cast("AsyncGenerator[JobEvent, None]", self._runner.run(self._job()))
        recorded = False
        async with aclosing(events):
            async for event in events:
                self._stages.note(event)
                await self._pass_on(event)
                self._stages.passed_on(event)
                recorded = isinstance(event, explain_pb2.ExplanationRecord)
        if not recorded:
            raise InternalFault("INTERNAL_ERROR", f"internal error {self._id}")

    async def _pass_on(self, event: JobEvent) -> None:
        if isinstance(event, MapReady):
            await self._outlet.send_map(event)
        elif isinstance(event, explain_pb2.Progress):
            await self._outlet.send_progress(event)
        elif isinstance(event, explain_pb2.Prediction):
            await self._outlet.send(explain_pb2.ExplainResponse(prediction=event))
        elif isinstance(event, explain_pb2.MethodResult):
            self._finished.add(event.method_key)
            self._drained |= event.outcome == explain_pb2.OUTCOME_DRAINED
            method = self._methods.get(event.method_key, "")
            self._observer.method_ended(method=method, model=self._checked.entry.model.name, result=event)
            await self._outlet.send(explain_pb2.ExplainResponse(method_result=event))
        else:
            event.start_time.FromNanoseconds(self._arrived_ns)
            await self._outlet.send(explain_pb2.ExplainResponse(summary=explain_pb2.Summary(record=event)))

    def _job(self) -> Job:
        spec = self._checked.spec
        now = asyncio.get_running_loop().time()
        deadline = stop_at(spec, now=now, seconds_left=self._context.time_remaining())
        return Job(
            explanation_id=self._id,
            spec=spec,
            tensors=self._places,
            memory=self._upload.memory,
            cautions=self._checked.cautions,
            estimated_seconds=dict(self._checked.expected.methods),
            preparing_seconds=self._checked.expected.preparing,
            deadline_s=deadline,
            entry=self._checked.entry,
        )

    def _accepted(self) -> explain_pb2.Accepted:
        spec, model = self._checked.spec, self._checked.entry.model
        return explain_pb2.Accepted(
            explanation_id=self._id,
            model=model.name,
            version=model.version,
            model_digest=model.digest,
            target=spec.target,
            methods=spec.methods,
            seed=spec.seed,
            queue_position=self._ticket.ahead,
            cautions=self._checked.cautions,
        )

    def _freshen(self, progress: explain_pb2.Progress) -> None:
        progress.bytes_received = self._upload.bytes_received
        progress.bytes_total = self._upload.bytes_total


def _method_name(field: str | None) -> str:
    return (field or "").replace("_", "-")
