"""What the pool tells whoever counts."""

from __future__ import annotations

from typing import Protocol

from voxplain.worker.v1 import worker_pb2


class PoolObserver(Protocol):
    """Counters that the pool calls. Every method returns at once and never raises."""

    def evaluations(self, *, method: str, engine: str, count: int) -> None:
        """Perturbed cases went through a model, or gradient passes were done. `method` is the kebab name."""

    def saved(self, *, reason: str, count: int) -> None:
        """Evaluations needed no pass: "unchanged" (the perturbation changes nothing), "repeated" (the same perturbed case
        comes earlier in the method), "shared" (another method of the call has evaluated the case, or made the gradient) or
        "checkpoint"."""

    def batches(self, *, size: int, passes: int) -> None:
        """So many passes of so many perturbed cases each went through a model."""

    def restarts(self, reason: str) -> None:
        """A worker is replaced: "died", "silent", "cancel" (it did not stop in time) or "start"."""

    def cancel_to_stop_seconds(self, seconds: float) -> None:
        """A cancelled worker has stopped."""

    def queue_length(self, calls: int) -> None:
        """So many calls wait."""

    def queue_wait_seconds(self, seconds: float) -> None:
        """A call has got its worker."""

    def workers(self, *, ready: int, failing: bool) -> None:
        """So many compute processes are up.

        Args:
            ready: their number.
            failing: every one has ended by itself, again and again, before it could be of use.
        """


class SilentObserver:
    """Counts nothing."""

    def evaluations(self, *, method: str, engine: str, count: int) -> None:
        """Ignore."""

    def saved(self, *, reason: str, count: int) -> None:
        """Ignore."""

    def batches(self, *, size: int, passes: int) -> None:
        """Ignore."""

    def restarts(self, reason: str) -> None:
        """Ignore."""

    def cancel_to_stop_seconds(self, seconds: float) -> None:
        """Ignore."""

    def queue_length(self, calls: int) -> None:
        """Ignore."""

    def queue_wait_seconds(self, seconds: float) -> None:
        """Ignore."""

    def workers(self, *, ready: int, failing: bool) -> None:
        """Ignore."""


def tell_block(observer: PoolObserver, told: worker_pb2.BlockDone) -> None:
    """Tell in which passes a block was computed, and which of its evaluations needed none."""
    for size, passes in told.batches.items():
        observer.batches(size=size, passes=passes)
    for reason, count in (("unchanged", told.unchanged), ("repeated", told.repeated_cases), ("shared", told.shared)):
        if count:
            observer.saved(reason=reason, count=count)
