"""Which perturbations, cut into blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from voxplain_server.engines.perturbation import Perturbation


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
    """A pure function from index to perturbation, the same on every worker."""

    @property
    def evaluations(self) -> int:
        """How many there are."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Ranges that cover 0 .. evaluations-1 once, in the order in which they are to be computed."""

    @property
    def features(self) -> int | None:
        """How many features are switched, for methods that have them."""

    def perturbation(self, index: int) -> Perturbation:
        """The perturbation at an index."""


def cut(evaluations: int, block_size: int) -> tuple[Block, ...]:
    """Cut a plan into blocks of equal size, the last one shorter."""
    return tuple(Block(start=start, stop=min(start + block_size, evaluations)) for start in range(0, evaluations, block_size))
