"""Counts what a pool that only runs inferences tells; the gauges of the queue and of the workers are the other pool's."""

from __future__ import annotations

from voxplain_server.observe.log import Log
from voxplain_server.observe.metrics import Metrics
from voxplain_server.workers.events import SilentObserver


class InferencePoolWatch(SilentObserver):
    """A PoolObserver over metrics and a log.

    That it fails as a whole is logged, and keeps the server from no explanation: health does not hear of it.
    """

    def __init__(self, metrics: Metrics, log: Log) -> None:
        self._metrics = metrics
        self._log = log
        self._failing = False

    def restarts(self, reason: str) -> None:
        """A worker is replaced."""
        self._metrics.worker_restarts.labels(reason).inc()

    def cancel_to_stop_seconds(self, seconds: float) -> None:
        """A cancelled worker has stopped."""
        self._metrics.stop_seconds.observe(seconds)

    def workers(self, *, ready: int, failing: bool) -> None:
        """So many compute processes are up."""
        if failing != self._failing:
            self._failing = failing
            self._log.write("compute_failing" if failing else "compute_recovered", level="error" if failing else "info")
