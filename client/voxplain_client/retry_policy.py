"""When a broken call is made again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from voxplain.errors import LimitExceeded, ServerUnavailable, VoxplainError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon. Explaining changes nothing on the server, so doing it again is always safe.

    Attributes:
        attempts: calls made again in a row without any advance between them; 0: never.
        first_attempts: the same before the server has answered anything at all: its address may be wrong.
        first_wait_s: wait before the first of them, doubled each time and shortened at random by up to a half.
        longest_wait_s: the longest such wait. A delay that the server names is kept in full up to `patience_s`.
        patience_s: a server that asks for a longer wait is given up.
    """

    attempts: int = 6
    first_attempts: int = 1
    first_wait_s: float = 0.5
    longest_wait_s: float = 15.0
    patience_s: float = 120.0

    def wait_s(self, fault: VoxplainError, *, attempt: int, answered: bool) -> float | None:
        """Seconds to wait before the call is made again; None: it shall not be.

        Args:
            fault: what ended the call.
            attempt: counts from 1 since the last advance.
            answered: whether the server has answered anything in this explanation.
        """
        asked = fault.retry_after_s
        if not isinstance(fault, ServerUnavailable) and not (isinstance(fault, LimitExceeded) and asked is not None):
            return None
        untyped = fault.reason == "CONNECTION_LOST"
        allowed = min(self.attempts, self.first_attempts) if untyped and not answered else self.attempts
        if attempt > allowed or (asked is not None and asked > self.patience_s):
            return None
        backoff = min(self.first_wait_s * 2.0 ** (attempt - 1), self.longest_wait_s)
        # Many clients that lost one server must not all come back at one moment.
        backoff *= random.uniform(0.5, 1.0)
        return max(backoff, asked) if asked is not None else backoff
