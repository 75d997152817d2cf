"""How many requests of a job may be sent again."""

from __future__ import annotations


class RetryBudget:
    """A floor, and a share of all requests: a server that fails now and then is borne, one that is down is not hammered.

    Of requests that fail with probability p every one takes p / (1 - p) retries on average: a share of 0.5 bears p = 0.2,
    which takes 0.25, with a margin, and gives up between p = 0.3 and 0.4.

    Args:
        share: retries for each request.
        floor: retries beside.
    """

    def __init__(self, *, share: float, floor: int) -> None:
        self._share = share
        self._floor = floor
        self.requests = 0
        self.retries = 0

    def note_request(self) -> None:
        """Count a request that is sent for the first time."""
        self.requests += 1

    def take(self) -> bool:
        """Take one retry; False: there is none left."""
        if self.retries + 1 > self._floor + self._share * self.requests:
            return False
        self.retries += 1
        return True
