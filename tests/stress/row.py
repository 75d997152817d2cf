"""One row of the table of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """What was done to the server, what it must show, and what it has shown.

    Attributes:
        what: in words.
        count: how often, really.
        goal: in words and figures.
        figure: beside it.
        passed: whether the figure meets the goal.
        remark: what a reader must know; empty mostly.
    """

    what: str
    count: str
    goal: str
    figure: str
    passed: bool
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of the full count is done.

    Attributes:
        share: 1: all of it.
    """

    share: float = 1.0

    def of(self, full: int, *, least: int = 1) -> int:
        """The count that is done where `full` is wanted."""
        return max(min(least, full), round(full * self.share))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def milliseconds(seconds: float) -> str:
    """In words."""
    return f"{1000 * seconds:.0f} ms"


def mib(size: float) -> str:
    """In words."""
    return f"{size / 2**20:.0f} MiB"
