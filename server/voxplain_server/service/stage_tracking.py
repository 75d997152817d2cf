"""From the events of a call to its stages and its first map."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from voxplain.v1 import explain_pb2

from voxplain_server.service.spans import COMPUTE, PREPARE, QUEUE, SEND, CallSpans
from voxplain_server.workers.job import JobEvent, MapReady

_STAGES = {explain_pb2.Progress.STAGE_QUEUED: QUEUE, explain_pb2.Progress.STAGE_PREPARING: PREPARE}


class StageTracking:
    """Follows one call.

    Args:
        spans: told of stages.
        methods: kebab names by key.
        on_first_map: called with the seconds from now to the first map that goes out.
    """

    def __init__(self, spans: CallSpans, methods: Mapping[str, str], *, on_first_map: Callable[[float], None]) -> None:
        self._spans = spans
        self._methods = methods
        self._to_come = list(methods)
        self._on_first_map: Callable[[float], None] | None = on_first_map
        self._begin = time.monotonic()

    def note(self, event: JobEvent) -> None:
        """An event is about to go out."""
        if isinstance(event, explain_pb2.Progress):
            stage = _STAGES.get(event.stage)
            if stage is not None:
                self._spans.enter(stage)
            elif event.stage == explain_pb2.Progress.STAGE_COMPUTING:
                self._spans.enter(COMPUTE, method=self._methods.get(event.method_key, ""))
        elif isinstance(event, MapReady):
            if event.header.snapshot:
                self._spans.happened("snapshot")
            elif event.header.quantity != explain_pb2.QUANTITY_LABELS:
                self._spans.enter(SEND, method=self._methods.get(event.header.method_key, ""))
        elif isinstance(event, explain_pb2.MethodResult):
            self._spans.note(
                outcome=explain_pb2.Outcome.Name(event.outcome).removeprefix("OUTCOME_").lower(),
                engine=event.engine,
                evaluations=event.evaluations_done,
                evaluations_saved=event.evaluations_saved,
                compute_seconds=event.compute_duration.ToNanoseconds() / 1e9,
            )

    def passed_on(self, event: JobEvent) -> None:
        """An event is out."""
        if isinstance(event, explain_pb2.MethodResult) and event.method_key in self._to_come:
            # Methods are computed in their order; one that is quick ends before any Progress has told of it.
            self._to_come.remove(event.method_key)
            if self._to_come:
                self._spans.enter(COMPUTE, method=self._methods[self._to_come[0]])
        if self._on_first_map is not None and isinstance(event, MapReady):
            self._on_first_map(time.monotonic() - self._begin)
            self._on_first_map = None
