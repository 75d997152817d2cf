"""What the service tells whoever counts and logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from voxplain.v1 import explain_pb2


class CallObserver(Protocol):
    """Told of calls as they go. Nothing a client typed is passed on: models and methods are ours by then."""

    def call_started(self, *, explanation_id: str, model: str, version: str, methods: Sequence[str], tensors: int) -> None:
        """A call was admitted; `methods` are names, not keys."""

    def call_refused(self, *, model: str, reason: str, code: str) -> None:
        """A call ended before it was admitted. `model` is empty where no such model is known."""

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
        """An admitted call ended.

        Args:
            unfinished: those of `methods` that had no result.
            outcome: "completed", "drained" (some of it is left to another server), "cancelled" or "failed".
            reason: a code, empty where it is completed.
        """

    def method_ended(self, *, method: str, model: str, result: explain_pb2.MethodResult) -> None:
        """A method of an admitted call ended."""

    def inference_ended(
        self, *, model: str, outcome: str, reason: str, seconds: float, bytes_received: int, bytes_sent: int
    ) -> None:
        """An inference by raw tensors that was let in has ended; outcomes and reasons as for calls."""

    def first_map(self, seconds: float) -> None:
        """The first map of a call that asks for snapshots went out, so long after its spec came."""

    def admission_refused(self, reason: str) -> None:
        """A limit of all calls together was reached."""

    def turned_away(self, seconds: float) -> None:
        """A call that is to come again has been told so, so long after it reached the service."""

    def admitted_bytes(self, total: int) -> None:
        """Bytes reserved by all calls changed to this."""

    def bytes_moved(self, *, received: int = 0, sent: int = 0) -> None:
        """Bytes of tensors came in or went out."""

    def foreign_fault(self, fault: BaseException, *, explanation_id: str = "") -> str:
        """An exception that is none of ours. Returns the opaque id under which it was logged, without its text."""
