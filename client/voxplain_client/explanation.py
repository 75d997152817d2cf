"""A running explanation, as an iterator of events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc
from voxplain.errors import Cancelled, DeadlinePassed, VoxplainError

from voxplain_client.conversation import Conversation
from voxplain_client.events import Event
from voxplain_client.explanation_result import ExplanationResult
from voxplain_client.faults import translate

Dial = Callable[[Iterator[bytes], float | None], Any]
"""Makes a call that sends these messages within so many seconds."""


class Explanation:
    """Events in the order of the contract. A lost connection resumes by itself, told by a `Resuming` event.

    Use it as a context manager, or call `cancel()`, so that leaving early stops the compute. Not for two threads
    at once, except for `cancel()`.
    """

    def __init__(self, conversation: Conversation, dial: Dial, *, timeout_s: float | None) -> None:
        self._conversation = conversation
        self._dial = dial
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._cancelled = threading.Event()
        self._call: Any = None
        self._events = self._run()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._conversation.finished:
            self.cancel()

    def cancel(self) -> None:
        """Stop: the server stops computing within one batch. Iterating then raises voxplain.errors.Cancelled."""
        self._cancelled.set()
        if self._call is not None:
            self._call.cancel()

    def result(self) -> ExplanationResult:
        """Wait for the end and return everything.

        Raises:
            VoxplainError: the call failed for good.
        """
        for _ in self:
            pass
        return self._conversation.result()

    def _run(self) -> Iterator[Event]:
        while not self._conversation.finished:
            fault: VoxplainError | None = None
            try:
                yield from self._one_call()
            except grpc.RpcError as error:
                fault = translate(error)
            if self._conversation.finished:
                return
            self._raise_if_cancelled()
            resuming = self._conversation.recover(fault)
            yield resuming
            self._cancelled.wait(resuming.wait_s)
            self._raise_if_cancelled()

    def _one_call(self) -> Iterator[Event]:
        left_s = None if self._deadline is None else self._deadline - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise DeadlinePassed("DEADLINE_EXCEEDED", "the time given to the explanation has passed")
        self._call = self._dial(self._conversation.messages(), left_s)
        try:
            self._raise_if_cancelled()
            for message in self._call:
                yield from self._conversation.receive(message)
        finally:
            # After a fault of ours, and when the caller stops iterating, the server must not go on computing.
            self._call.cancel()

    def _raise_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled("CANCELLED", "the explanation was cancelled")
