"""Another project that voxplain lives beside, and what was seen of the two together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check that was made.

    Attributes:
        title: what should be true, as a sentence.
        fault: what was seen instead; empty: it is true.
    """

    title: str
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A project and its checks.

    Attributes:
        name: for the command line and for every line that is printed.
        checks: given an empty folder that is removed afterwards, makes the checks one after another.
    """

    name: str
    checks: Callable[[Path], Iterator[Outcome]]
