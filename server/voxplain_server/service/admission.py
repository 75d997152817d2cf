"""Who may come in: a ledger of bytes and slots that every call leaves as it found it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from voxplain.errors import LimitExceeded, ServerUnavailable

from voxplain_server.service.call_observer import CallObserver
from voxplain_server.workers.ledger import Ledger

RETRY_SECONDS = 5.0
"""What a client that finds no place is told to wait."""


@dataclass(slots=True, eq=False)
class Ticket:
    """An admitted call.

    Attributes:
        reserved_bytes: what it holds of the ledger.
        ahead: calls that were in before it and would have to end before a worker is free; 0: one is.
    """

    reserved_bytes: int
    ahead: int
    _give_back: Callable[[int], None]

    def keep(self, size: int) -> None:
        """Give back all but `size` bytes: the call has shown that it needs no more."""
        spare = self.reserved_bytes - size
        if spare > 0:
            self.reserved_bytes = size
            self._give_back(spare)


class Admission:
    """Admits calls while there are slots and bytes.

    Args:
        max_bytes: bytes of all calls together.
        workers: calls that compute at one time.
        queue_length: calls that may wait besides.
        observer: told of what is reserved and refused.
        ledger: where it books what it gives; None: one of its own.
    """

    def __init__(
        self, *, max_bytes: int, workers: int, queue_length: int, observer: CallObserver, ledger: Ledger | None = None
    ) -> None:
        self._max_bytes = max_bytes
        self._workers = workers
        self._max_calls = workers + queue_length
        self._observer = observer
        self._ledger = ledger or Ledger()
        self._reserved_bytes = 0
        self._calls = 0
        self._open = True

    @property
    def reserved_bytes(self) -> int:
        """Bytes held by all calls."""
        return self._reserved_bytes

    @property
    def calls(self) -> int:
        """Calls that are in."""
        return self._calls

    @property
    def ahead(self) -> int:
        """Calls that the next one would wait for."""
        return max(0, self._calls - self._workers + 1)

    def close(self) -> None:
        """Let nobody in any more."""
        self._open = False

    def check_open(self) -> None:
        """Refuse while shutting down.

        Raises:
            ServerUnavailable: SHUTTING_DOWN.
        """
        if not self._open:
            raise ServerUnavailable("SHUTTING_DOWN", "this server is stopping; ask another", retry_after_s=RETRY_SECONDS)

    def check_room(self) -> None:
        """Refuse a call for which there is no slot, whatever it would ask: nothing of it needs to be read for that.

        Raises:
            ServerUnavailable: SHUTTING_DOWN.
            LimitExceeded: QUEUE_FULL.
        """
        self.check_open()
        if self._calls >= self._max_calls:
            self._refuse(self._full())

    @contextmanager
    def admit(self, size: int) -> Iterator[Ticket]:
        """Hold `size` bytes and a slot for the time of a call.

        Raises:
            ServerUnavailable: SHUTTING_DOWN.
            LimitExceeded: CALL_TOO_LARGE (never fits), MEMORY_EXHAUSTED or QUEUE_FULL (both with a retry delay).
        """
        self.check_open()
        refusal = self._refusal(size)
        if refusal is not None:
            self._refuse(refusal)
        ticket = Ticket(size, self.ahead, self._give_back)
        self._change(size, 1)
        self._ledger.acquire("slots")
        self._ledger.acquire("admitted_bytes", size)
        try:
            yield ticket
        finally:
            self._change(0, -1)
            self._ledger.release("slots")
            ticket.keep(0)

    def _give_back(self, size: int) -> None:
        self._change(-size, 0)
        self._ledger.release("admitted_bytes", size)

    def _refusal(self, size: int) -> LimitExceeded | None:
        if size > self._max_bytes:
            return LimitExceeded("CALL_TOO_LARGE", "this call alone needs more memory than the server may reserve; send less")
        if self._calls >= self._max_calls:
            return self._full()
        if self._reserved_bytes + size > self._max_bytes:
            return LimitExceeded(
                "MEMORY_EXHAUSTED", "other calls hold the memory that this one needs; try again", retry_after_s=RETRY_SECONDS
            )
        return None

    def _full(self) -> LimitExceeded:
        return LimitExceeded("QUEUE_FULL", "too many calls wait already; try again", retry_after_s=RETRY_SECONDS)

    def _refuse(self, refusal: LimitExceeded) -> NoReturn:
        self._observer.admission_refused(refusal.reason)
        raise refusal

    def _change(self, size: int, calls: int) -> None:
        self._reserved_bytes += size
        self._calls += calls
        self._observer.admitted_bytes(self._reserved_bytes)
