"""Requests to an inference server, several under way at a time, sent again where that may help."""

from __future__ import annotations

import heapq
import queue
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

import grpc
from voxplain.errors import ServerUnavailable, UnsupportedByModel, VoxplainError
from voxplain.inference import open_inference_pb2

from voxplain_server.engines.batched_scores import ask
from voxplain_server.engines.engine import Cancelled
from voxplain_server.engines.retry_budget import RetryBudget

Tag = TypeVar("Tag")
Infer: TypeAlias = "Callable[..., grpc.Future[open_inference_pb2.ModelInferResponse]]"
"""`stub.ModelInfer.future`."""

MAX_ATTEMPTS = 10
"""Of one request. At one failure in five, one request in ten million needs more."""
MAX_DEADLINES = 3
"""Attempts of one request that may end at its deadline: each of them has cost all of it."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_ASK_EVERY_S = 0.05
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass(order=True)
class _Flight(Generic[Tag]):
    """One request; in a heap by when it is due again."""

    due: float
    number: int
    tag: Tag = field(compare=False)
    request: open_inference_pb2.ModelInferRequest = field(compare=False)
    attempts: int = field(default=0, compare=False)
    deadlines: int = field(default=0, compare=False)
    future: grpc.Future[open_inference_pb2.ModelInferResponse] | None = field(default=None, compare=False)


class RemoteCalls:
    """Sends requests.

    Args:
        infer: starts one.
        in_flight: most under way at a time, those that wait to be sent again included.
        seconds: deadline of each.
        budget: how many may be sent again, over the whole job.
    """

    def __init__(self, infer: Infer, *, in_flight: int, seconds: float, budget: RetryBudget) -> None:
        self._infer = infer
        self._in_flight = in_flight
        self._seconds = seconds
        self._budget = budget

    def answers(
        self, requests: Iterator[tuple[Tag, open_inference_pb2.ModelInferRequest]], *, cancelled: Cancelled
    ) -> Iterator[tuple[Tag, open_inference_pb2.ModelInferResponse]]:
        """Send every request; a next one is only asked for when there is room for it.

        Yields:
            What each was called, and its answer, in the order of the answers.

        Raises:
            voxplain.errors.Cancelled: `cancelled()` became true.
            voxplain.errors.ServerUnavailable: REMOTE_RETRY_BUDGET_SPENT or REMOTE_DEADLINE.
            voxplain.errors.UnsupportedByModel: REMOTE_REFUSED.
        """
        landed: queue.SimpleQueue[_Flight[Tag]] = queue.SimpleQueue()
        flying: dict[int, _Flight[Tag]] = {}
        waiting: list[_Flight[Tag]] = []
        left = enumerate(requests)
        try:
            while True:
                ask(cancelled)
                now = time.monotonic()
                while waiting and waiting[0].due <= now:
                    self._send(heapq.heappop(waiting), flying, landed)
                while len(flying) + len(waiting) < self._in_flight and (following := next(left, None)) is not None:
                    number, (tag, request) = following
                    self._budget.note_request()
                    self._send(_Flight(now, number, tag, request), flying, landed)
                if not flying and not waiting:
                    return
                try:
                    flight = landed.get(timeout=_until(waiting, now))
                except queue.Empty:
                    continue
                del flying[flight.number]
                answer = self._land(flight)
                if answer is None:
                    heapq.heappush(waiting, flight)
                else:
                    yield flight.tag, answer
        finally:
            for flight in flying.values():
                if flight.future is not None:
                    flight.future.cancel()

    def _send(self, flight: _Flight[Tag], flying: dict[int, _Flight[Tag]], landed: queue.SimpleQueue[_Flight[Tag]]) -> None:
        flight.attempts += 1
        flying[flight.number] = flight
        # A lost connection is waited for until the deadline, and not run against again and again.
        flight.future = self._infer(flight.request, timeout=self._seconds, wait_for_ready=True)
        flight.future.add_done_callback(lambda _: landed.put(flight))

    def _land(self, flight: _Flight[Tag]) -> open_inference_pb2.ModelInferResponse | None:
        """The answer, or None where the request is to be sent again when it is due."""
        if flight.future is None:
            return None
        try:
            return flight.future.result()
        except grpc.RpcError as fault:
            code = fault.code()
        flight.deadlines += code is grpc.StatusCode.DEADLINE_EXCEEDED
        if code not in _RETRIED:
            raise _refused(code)
        if flight.deadlines >= MAX_DEADLINES:
            told = (
                f"the remote server did not answer a request in {MAX_DEADLINES} times its deadline; go on from the checkpoint"
            )
            raise ServerUnavailable("REMOTE_DEADLINE", told)
        if flight.attempts >= MAX_ATTEMPTS or not self._budget.take():
            raise self._spent(code)
        pause = min(_FIRST_PAUSE_S * 2 ** (flight.attempts - 1), _LONGEST_PAUSE_S)
        flight.due = time.monotonic() + pause * random.uniform(0.5, 1.0)
        return None

    def _spent(self, code: grpc.StatusCode) -> VoxplainError:
        told = (
            f"the remote server failed more requests than may be sent again, last with {code.name}: "
            f"{self._budget.retries} of {self._budget.requests}; go on from the checkpoint when it answers"
        )
        return ServerUnavailable("REMOTE_RETRY_BUDGET_SPENT", told)


def _until(waiting: list[_Flight[Tag]], now: float) -> float:
    """Seconds until there is something to do, whatever the server does."""
    return min(_ASK_EVERY_S, max(waiting[0].due - now, 0.001)) if waiting else _ASK_EVERY_S


def _refused(code: grpc.StatusCode) -> VoxplainError:
    # The server's own words may quote anything; the name of a code is one of seventeen.
    told = f"the remote server refused a request with {code.name}; its log tells why"
    return UnsupportedByModel("REMOTE_REFUSED", told)
