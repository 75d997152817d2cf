"""Which blocks of a plan are wanted, handed out and done."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable, Sequence
from itertools import accumulate

REVIEWS = 20
"""How often, at most, a call compares its standard error with the target."""


class BlockDesk:
    """Hands out the blocks of one plan in their order and takes them back when a worker is lost.

    Args:
        starts, stops: range of each block, in the order in which they are to be computed.
        limit: blocks that are wanted; the rest is beyond the budget. None: all.
    """

    def __init__(self, starts: Sequence[int], stops: Sequence[int], *, limit: int | None = None) -> None:
        self.starts = tuple(starts)
        self.stops = tuple(stops)
        self.limit = len(self.starts) if limit is None else min(limit, len(self.starts))
        self.evaluations_done = 0
        self.blocks_done = 0
        self._saved: dict[int, int] = {}
        self._sizes = _summed(self.starts, self.stops)
        self._next = 0
        self._returned: list[int] = []
        self._prefix = 0

    @property
    def prefix(self) -> int:
        """How many blocks from the first on are done without a gap."""
        return self._prefix

    @property
    def complete(self) -> bool:
        """Whether every wanted block is done."""
        return self._prefix >= self.limit

    @property
    def waiting(self) -> int:
        """Blocks that nobody has; blocks known from a checkpoint may still be among them."""
        return self.limit - self._next + len(self._returned)

    def is_done(self, block: int) -> bool:
        """Whether one block is done."""
        return block in self._saved

    def evaluations_in(self, blocks: int) -> int:
        """Evaluations of the first so many blocks."""
        return self._sizes[blocks]

    def saved_in(self, blocks: int | None = None) -> int:
        """Evaluations that needed no pass, in the first so many blocks, or in all that are done."""
        return sum(saved for block, saved in self._saved.items() if blocks is None or block < blocks)

    def saved_by(self, block: int) -> int:
        """Evaluations of one done block that needed no pass."""
        return self._saved[block]

    def take(self) -> int | None:
        """The next block to compute; None: there is none."""
        while self._returned:
            block = heapq.heappop(self._returned)
            if not self.is_done(block):
                return block
        while self._next < self.limit:
            block, self._next = self._next, self._next + 1
            if not self.is_done(block):
                return block
        return None

    def give_back(self, blocks: Iterable[int]) -> None:
        """Blocks of a lost worker wait again."""
        for block in blocks:
            if not self.is_done(block):
                heapq.heappush(self._returned, block)

    def finish(self, block: int, *, saved: int = 0) -> bool:
        """Note a block as done. False: it was done before."""
        if self.is_done(block):
            return False
        self._saved[block] = saved
        self.blocks_done += 1
        self.evaluations_done += self.stops[block] - self.starts[block]
        while self._prefix in self._saved:
            self._prefix += 1
        return True

    def stop(self) -> None:
        """Hand out no more."""
        self._next = self.limit
        self._returned.clear()


def blocks_within(starts: Sequence[int], stops: Sequence[int], evaluations: int) -> int:
    """How many whole blocks from the first on fit into a number of evaluations."""
    return bisect.bisect_right(_summed(starts, stops), evaluations) - 1


def review_points(blocks: int) -> tuple[int, ...]:
    """After how many blocks the standard error is compared with its target: fixed by the plan, never by time or workers, so
    that a call which stops early stops at the same place however many workers it had. The first block is short and does not
    count."""
    step = max(-(-blocks // REVIEWS), 1)
    return tuple(range(1 + step, blocks, step))


def _summed(starts: Sequence[int], stops: Sequence[int]) -> list[int]:
    """Evaluations of the first 0, 1, 2, ... blocks."""
    return list(accumulate((stop - start for start, stop in zip(starts, stops, strict=True)), initial=0))
