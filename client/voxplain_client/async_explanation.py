"""A running explanation, as an asynchronous iterator of events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

import grpc
from voxplain.errors import Cancelled, DeadlinePassed, VoxplainError

from voxplain_client.conversation import Conversation
from voxplain_client.events import Event
from voxplain_client.explanation_result import ExplanationResult
from voxplain_client.faults import translate

Dial = Callable[[AsyncIterator[bytes], float | None], Any]
"""Makes a call that sends these messages within so many seconds."""


class AsyncExplanation:
    """As Explanation, for asyncio. Cancelling the task that iterates cancels the call."""

    def __init__(self, conversation: Conversation, dial: Dial, *, timeout_s: float | None) -> None:
        self._conversation = conversation
        self._dial = dial
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._cancelled = asyncio.Event()
        self._call: Any = None
        self._events = self._run()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._conversation.finished:
            self.cancel()

    def cancel(self) -> None:
        """Stop: the server stops computing within one batch. Iterating then raises voxplain.errors.Cancelled."""
        self._cancelled.set()
        if self._call is not None:
            self._call.cancel()

    async def result(self) -> ExplanationResult:
        """Wait for the end and return everything.

        Raises:
            VoxplainError: the call failed for good.
        """
        async for _ in self:
            pass
        return self._conversation.result()

    async def _run(self) -> AsyncIterator[Event]:
        while not self._conversation.finished:
            fault: VoxplainError | None = None
            try:
                async for event in self._one_call():
                    yield event
            except grpc.RpcError as error:
                fault = translate(error)
            except asyncio.CancelledError:
                # grpc.aio raises this in us both when our task is cancelled and when cancel() ended the call.
                if not self._cancelled.is_set():
                    raise
            if self._conversation.finished:
                return
            self._raise_if_cancelled()
            resuming = self._conversation.recover(fault)
            yield resuming
            await self._wait(resuming.wait_s)
            self._raise_if_cancelled()

    async def _one_call(self) -> AsyncIterator[Event]:
        left_s = None if self._deadline is None else self._deadline - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise DeadlinePassed("DEADLINE_EXCEEDED", "the time given to the explanation has passed")
        answered = asyncio.Event()
        self._call = self._dial(self._messages(answered), left_s)
        try:
            self._raise_if_cancelled()
            async for message in self._call:
                answered.set()
                for event in self._conversation.receive(message):
                    yield event
        finally:
            self._call.cancel()
            # A call that ended without an answer does not end the task that waits for one.
            answered.set()

    async def _messages(self, answered: asyncio.Event) -> AsyncIterator[bytes]:
        """The spec, and once the server has accepted it the chunks: grpc.aio may lose the status of a call that ends while it
        writes, and most refusals come at the spec."""
        messages = self._conversation.messages()
        yield next(messages)
        await answered.wait()
        for message in messages:
            yield message

    async def _wait(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._cancelled.wait()
        except TimeoutError:
            return

    def _raise_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled("CANCELLED", "the explanation was cancelled")
