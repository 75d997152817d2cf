"""Counts what the pool of compute processes tells, the workers' figures among it."""

from __future__ import annotations

from collections.abc import Callable

from voxplain_server.observe.log import Log
from voxplain_server.observe.metrics import Metrics


class PoolWatch:
    """A voxplain_server.workers.events.PoolObserver over metrics and a log.

    Args:
        metrics, log: where to.
        on_failing: called when the compute as a whole begins or ceases to fail.
    """

    def __init__(self, metrics: Metrics, log: Log, *, on_failing: Callable[[bool], None] = lambda _: None) -> None:
        self._metrics = metrics
        self._log = log
        self._on_failing = on_failing
        self._failing = False

    def evaluations(self, *, method: str, engine: str, count: int) -> None:
        """Perturbed cases went through a model, or gradient passes were done."""
        self._metrics.evaluations.labels(method, engine).inc(count)

    def saved(self, *, reason: str, count: int) -> None:
        """Evaluations needed no pass."""
        self._metrics.saved.labels(reason).inc(count)

    def batches(self, *, size: int, passes: int) -> None:
        """So many passes of so many perturbed cases each."""
        for _ in range(passes):
            self._metrics.batch_size.observe(size)

    def restarts(self, reason: str) -> None:
        """A worker is replaced."""
        self._metrics.worker_restarts.labels(reason).inc()

    def cancel_to_stop_seconds(self, seconds: float) -> None:
        """A cancelled worker has stopped."""
        self._metrics.stop_seconds.observe(seconds)

    def queue_length(self, calls: int) -> None:
        """So many calls wait."""
        self._metrics.queue.set(calls)

    def queue_wait_seconds(self, seconds: float) -> None:
        """A call has got its worker."""
        self._metrics.queue_wait.observe(seconds)

    def workers(self, *, ready: int, failing: bool) -> None:
        """So many compute processes are up."""
        self._metrics.workers_ready.set(ready)
        if failing != self._failing:
            self._failing = failing
            self._log.write("compute_failing" if failing else "compute_recovered", level="error" if failing else "info")
            self._on_failing(failing)
