"""The stages of a call, for whoever traces them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

RECEIVE, QUEUE, PREPARE, COMPUTE, SEND = "receive", "queue", "prepare", "compute", "send"
"""In this order; compute and send once for each method. A call is in exactly one stage at a time."""


class CallSpans(Protocol):
    """One call. Nothing a client typed is passed on but the trace that it is part of."""

    def enter(self, stage: str, *, method: str = "") -> None:
        """Leave the stage under way and enter another; entering the same one again does nothing."""

    def note(self, **attributes: str | int | float) -> None:
        """Facts about the stage under way."""

    def happened(self, event: str) -> None:
        """Something happened within the stage under way."""

    def end(self, *, outcome: str, reason: str) -> None:
        """The call is over."""


class Tracer(Protocol):
    """Makes the spans of calls."""

    def begin(
        self, metadata: Iterable[tuple[str, str | bytes]], *, explanation_id: str, model: str, version: str, methods: int
    ) -> CallSpans:
        """A call was admitted; its metadata may name the trace of its client (`traceparent`)."""


class NoSpans:
    """Traces nothing; a Tracer and a CallSpans."""

    def begin(
        self, metadata: Iterable[tuple[str, str | bytes]], *, explanation_id: str, model: str, version: str, methods: int
    ) -> NoSpans:
        """Ignore."""
        return self

    def enter(self, stage: str, *, method: str = "") -> None:
        """Ignore."""

    def note(self, **attributes: str | int | float) -> None:
        """Ignore."""

    def happened(self, event: str) -> None:
        """Ignore."""

    def end(self, *, outcome: str, reason: str) -> None:
        """Ignore."""
