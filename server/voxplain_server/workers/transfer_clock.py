"""Measures how long a reader takes with the maps of each method."""

from __future__ import annotations

import asyncio

from voxplain.v1 import explain_pb2

from voxplain_server.workers.job import JobEvent, MapReady
from voxplain_server.workers.method_run import duration


class TransferClock:
    """Fills MethodResult.transfer_duration in: the time for which the reader held the stream of events at its maps."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._held: dict[str, float] = {}
        self._results: list[explain_pb2.MethodResult] = []

    def now(self) -> float:
        """Event-loop time."""
        return self._loop.time()

    def fill_in(self, event: JobEvent) -> None:
        """Complete an event before it is given to the reader."""
        if isinstance(event, explain_pb2.MethodResult):
            event.transfer_duration.CopyFrom(duration(self._held.get(event.method_key, 0.0)))
            self._results.append(event)
        elif isinstance(event, explain_pb2.ExplanationRecord):
            del event.results[:]
            event.results.extend(self._results)

    def note(self, event: JobEvent, given_at: float) -> None:
        """The reader has done with an event."""
        if isinstance(event, MapReady):
            key = event.header.method_key
            self._held[key] = self._held.get(key, 0.0) + self.now() - given_at
