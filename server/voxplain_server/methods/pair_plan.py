"""Coalitions that come with their complements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.methods.fingerprint import CaseContent, Fingerprints
from voxplain_server.methods.game import Game
from voxplain_server.methods.plan import Block, cut


@dataclass(frozen=True, slots=True, eq=False)
class PairPlan:
    """Distinct pairs of a coalition and its complement, in an order in which any part of them is a fair sample.

    Where there are ends, evaluation 0 is the full coalition and 1 the empty one. Then come the pairs, two evaluations each.

    Attributes:
        game: the players.
        first: (pairs, players) one coalition of each pair; True: present.
        ends: whether the full and the empty coalition stand before the pairs.
        strata: (pairs,) the set that each pair was drawn from, without replacement.
        stratum_pairs: (strata,) how many pairs each of these sets holds; infinite where they are too many to matter.
        weights: (pairs, 2) what each coalition and its complement weigh in the regression.
        block_size: evaluations in one block.
    """

    game: Game
    first: npt.NDArray[np.bool_]
    ends: bool
    strata: npt.NDArray[np.int64]
    stratum_pairs: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    block_size: int

    @property
    def start(self) -> int:
        """The first evaluation of the first pair."""
        return 2 if self.ends else 0

    @property
    def evaluations(self) -> int:
        """The ends and two for each pair."""
        return self.start + 2 * int(self.first.shape[0])

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Equal ranges of whole pairs."""
        return cut(self.evaluations, max(2, self.block_size - self.block_size % 2), least=self.start + 2)

    @property
    def features(self) -> int | None:
        """Features that are switched."""
        return int(self.game.players.size)

    @property
    def unchanged(self) -> npt.NDArray[np.bool_]:
        """The coalition of all players."""
        same = np.zeros(self.evaluations, dtype=np.bool_)
        if self.ends:
            same[:2] = True, self.game.players.size == 0
        same[self.start :: 2] = self.first.all(axis=1)
        same[self.start + 1 :: 2] = ~self.first.any(axis=1)
        return same

    @property
    def distinct(self) -> bool:
        """Pairs are distinct, and the ends are no pair."""
        return True

    def fingerprints(self, content: CaseContent) -> Fingerprints:
        """Sums over the absent players."""
        ends = np.array([[False], [True]]).repeat(self.game.players.size, axis=1)[: self.start]
        pairs = np.stack([~self.first, self.first], axis=1).reshape(-1, self.game.players.size)
        return self.game.fingerprints(content, np.concatenate([ends, pairs]))

    def perturbation(self, index: int) -> Perturbation:
        """Absent players take their baseline."""
        if index < self.start:
            return self.game.without(np.arange(self.game.players.size if index else 0))
        pair, complement = divmod(index - self.start, 2)
        return self.game.without(np.flatnonzero(self.first[pair] if complement else ~self.first[pair]))

    def whole_pairs(self, done: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """The pairs of which both are done; none before the ends are."""
        if not done[: self.start].all():
            return np.array([], dtype=np.int64)
        return np.flatnonzero(done[self.start :].reshape(-1, 2).all(axis=1))

    def drawn_from(self, pairs: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """For each of these pairs, how many of them its stratum gave, and which share of the stratum that is."""
        strata = self.strata[pairs]
        counts = np.bincount(strata, minlength=self.stratum_pairs.size).astype(np.float64)
        return counts[strata], counts[strata] / self.stratum_pairs[strata]
