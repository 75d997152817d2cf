"""Counts and logs calls: what the service tells becomes metrics and lines."""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Sequence

from voxplain.v1 import explain_pb2

from voxplain_server.observe.log import Log
from voxplain_server.observe.metrics import Metrics

_FRAMES = 6
_WORKERS_FAULT = "INTERNAL"
"""Reason of what ended by an unforeseen exception in a worker; the worker logged it under the id that the message holds."""


class Watch:
    """A CallObserver over metrics and a log. Every method returns at once."""

    def __init__(self, metrics: Metrics, log: Log) -> None:
        self._metrics = metrics
        self._log = log

    def call_started(self, *, explanation_id: str, model: str, version: str, methods: Sequence[str], tensors: int) -> None:
        """A call was admitted."""
        self._metrics.in_flight.inc()
        self._log.write(
            "call_started",
            explanation_id=explanation_id,
            model=model,
            version=version,
            methods=len(methods),
            tensors=tensors,
        )

    def call_refused(self, *, model: str, reason: str, code: str) -> None:
        """A call ended before it was admitted."""
        self._metrics.refused_calls.labels(reason).inc()
        self._log.write("call_refused", model=model, reason=reason, code=code)

    def call_ended(
        self,
        *,
        explanation_id: str,
        model: str,
        version: str,
        methods: Sequence[str],
        unfinished: Sequence[str],
        outcome: str,
        reason: str,
        seconds: float,
        bytes_received: int,
        bytes_sent: int,
    ) -> None:
        """An admitted call ended."""
        self._metrics.in_flight.dec()
        self._metrics.calls.labels(outcome).inc()
        if outcome == "completed":
            self._metrics.duration.labels(model).observe(seconds)
        self._count_fault(reason)
        for method in unfinished:
            self._metrics.explanations.labels(method, model, outcome).inc()
        self._log.write(
            "call_ended",
            level="info" if outcome != "failed" else "warning",
            explanation_id=explanation_id,
            model=model,
            version=version,
            methods=len(methods),
            outcome=outcome,
            reason=reason,
            seconds=round(seconds, 3),
            bytes_received=bytes_received,
            bytes_sent=bytes_sent,
        )

    def method_ended(self, *, method: str, model: str, result: explain_pb2.MethodResult) -> None:
        """A method of an admitted call ended."""
        outcome = explain_pb2.Outcome.Name(result.outcome).removeprefix("OUTCOME_").lower()
        self._metrics.explanations.labels(method, model, outcome).inc()
        self._count_fault(result.reason)
        seconds = result.compute_duration.ToNanoseconds() / 1e9
        self._metrics.compute_seconds.labels(method).inc(max(seconds, 0.0))

    def inference_ended(
        self, *, model: str, outcome: str, reason: str, seconds: float, bytes_received: int, bytes_sent: int
    ) -> None:
        """An inference by raw tensors has ended. There may be many a second: only what went wrong is logged."""
        self._metrics.inferences.labels(model, outcome).inc()
        self._count_fault(reason)
        if outcome == "failed":
            self._log.write(
                "inference_failed",
                level="warning",
                model=model,
                reason=reason,
                seconds=round(seconds, 3),
                bytes_received=bytes_received,
                bytes_sent=bytes_sent,
            )

    def first_map(self, seconds: float) -> None:
        """The first map of a call that asks for snapshots went out."""
        self._metrics.first_snapshot.observe(seconds)

    def admission_refused(self, reason: str) -> None:
        """A limit of all calls together was reached."""
        self._metrics.rejections.labels(reason).inc()

    def turned_away(self, seconds: float) -> None:
        """A call that is to come again has been told so."""
        self._metrics.refusal_seconds.observe(seconds)

    def admitted_bytes(self, total: int) -> None:
        """Bytes reserved by all calls changed to this."""
        self._metrics.admitted.set(total)

    def bytes_moved(self, *, received: int = 0, sent: int = 0) -> None:
        """Bytes of tensors came in or went out."""
        if received:
            self._metrics.received.inc(received)
        if sent:
            self._metrics.sent.inc(sent)

    def health_changed(self, serving: bool) -> None:
        """Health answers otherwise from now on."""
        self._metrics.serving.set(serving)
        self._log.write("health_changed", serving=serving)

    def foreign_fault(self, fault: BaseException, *, explanation_id: str = "") -> str:
        """An exception that is none of ours: its type and the lines it passed are logged under the id that is returned."""
        fault_id = secrets.token_hex(6)
        frames = traceback.extract_tb(fault.__traceback__)[-_FRAMES:]
        where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
        self._metrics.faults.inc()
        self._log.write(
            "internal_fault",
            level="error",
            fault_id=fault_id,
            explanation_id=explanation_id,
            kind=type(fault).__name__,
            where=where,
        )
        return fault_id

    def _count_fault(self, reason: str) -> None:
        if reason == _WORKERS_FAULT:
            self._metrics.faults.inc()
