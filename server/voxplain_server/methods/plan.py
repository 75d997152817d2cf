"""Which perturbations, cut into blocks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from voxplain_server.engines.perturbation import Perturbation

MAX_EVALUATIONS = 1 << 24
"""Longest plan: its scores take 128 MiB."""
BEGINNING = 32
"""The first block begins with this part of a block: of 512 windows, which take about two seconds at 4 x 128^3, with 16."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fixed range of evaluations that one worker computes whole.

    Attributes:
        start, stop: indices of the plan.
        chain: True: each perturbation is close to the one before (a Shapley walk); an engine may carry activations.
    """

    start: int
    stop: int
    chain: bool = False


class Plan(Protocol):
    """A pure function from index to perturbation, the same on every worker.

    What changes nothing costs nothing and is exact: whoever evaluates a plan asks the model only where `unchanged` is
    False. Where it is True the score is the base score itself, bit for bit, so that differences are exactly zero.
    """

    @property
    def evaluations(self) -> int:
        """How many there are."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Ranges that cover 0 .. evaluations-1 once, in the order in which they are to be computed."""

    @property
    def features(self) -> int | None:
        """How many features are switched, for methods that have them."""

    @property
    def unchanged(self) -> npt.NDArray[np.bool_]:
        """(evaluations,) True where the perturbed case equals the case: no evaluation, the score is the base score."""

    def perturbation(self, index: int) -> Perturbation:
        """The perturbation at an index."""


def cut(evaluations: int, block_size: int, *, least: int = 1) -> tuple[Block, ...]:
    """Cut a plan into blocks of equal size, the last one shorter, the first one in two: its beginning is soon done, and with it
    the first snapshot.

    Args:
        evaluations: of the plan.
        block_size: evaluations in a block.
        least: evaluations below which nothing can be estimated; the beginning is a multiple of it.
    """
    beginning = max(block_size // BEGINNING // least, 1) * least
    borders = [0, *range(block_size, evaluations, block_size), evaluations] if evaluations else []
    if evaluations and beginning < borders[1]:
        borders.insert(1, beginning)
    return tuple(Block(start=start, stop=stop) for start, stop in pairwise(borders))
