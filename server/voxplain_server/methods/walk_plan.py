"""Shapley walks: from the baseline to the case, one player after another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.methods.draws import philox
from voxplain_server.methods.fingerprint import CaseContent, Fingerprints
from voxplain_server.methods.game import Game
from voxplain_server.methods.plan import Block

GROUP = 4
"""Walks in an antithetic group."""


@dataclass(frozen=True, slots=True, eq=False)
class WalkPlan:
    """Walks from the baseline to the case, each adding the players in an order of its own.

    Evaluation 0 is the baseline, from which every walk starts. Evaluation 1 + w * players + k is walk w after step k, the
    players order[0 .. k] being present. The last step of a walk is the case itself, whose score is known.

    Attributes:
        game: the players.
        walks: how many there are.
        seed, key: name the random stream of each walk, or of each group.
        block_size: evaluations in one block, rounded to whole walks or groups.
        antithetic: walks come in groups of four: an order, its reverse, and both after its halves have changed places.
    """

    game: Game
    walks: int
    seed: int
    key: str
    block_size: int
    antithetic: bool = False

    @property
    def players(self) -> int:
        """Steps of a walk."""
        return int(self.game.players.size)

    @property
    def evaluations(self) -> int:
        """The baseline and all steps."""
        return 1 + self.walks * self.players

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Chains of whole walks or groups; the baseline belongs to the first, which is as short as can be."""
        if self.players == 0:
            return (Block(start=0, stop=1),)
        least = self.players * (GROUP if self.antithetic else 1)
        step = max(1, self.block_size // least) * least
        starts = sorted({0, 1 + least, *range(1 + step, self.evaluations, step)} - {self.evaluations})
        return tuple(Block(start=a, stop=b, chain=True) for a, b in zip(starts, [*starts[1:], self.evaluations], strict=True))

    @property
    def features(self) -> int | None:
        """Features that are switched."""
        return self.players

    @property
    def unchanged(self) -> npt.NDArray[np.bool_]:
        """The last step of every walk; the baseline too, where nobody plays."""
        same = np.zeros(self.evaluations, dtype=np.bool_)
        same[0] = self.players == 0
        if self.players:
            same[self.players :: self.players] = True
        return same

    @property
    def distinct(self) -> bool:
        """Walks meet: all begin alike, and small or large coalitions often are the same."""
        return False

    def fingerprints(self, content: CaseContent) -> Fingerprints:
        """What is absent after a step: everything but what has come so far."""
        each = content.of_features(self.game.features, self.game.source)[self.game.players]
        everyone = each.sum(axis=0, dtype=np.uint64)
        present = [np.cumsum(each[self.order(walk)], axis=0, dtype=np.uint64) for walk in range(self.walks)]
        return np.asarray(everyone - np.concatenate([np.zeros((1, 2), np.uint64), *present]), dtype=np.uint64)

    def order(self, walk: int) -> npt.NDArray[np.int64]:
        """The order in which a walk adds the players, uniform over all orders."""
        if not self.antithetic:
            return philox(self.seed, self.key, "walk", walk).permutation(self.players)
        order = philox(self.seed, self.key, "group", walk // GROUP).permutation(self.players)
        if walk % GROUP >= 2:
            order = np.roll(order, self.players // 2)
        return order[::-1] if walk % 2 else order

    def perturbation(self, index: int) -> Perturbation:
        """The players that a walk has not added yet take their baseline."""
        if index == 0:
            return self.game.without(np.arange(self.players))
        walk, step = divmod(index - 1, self.players)
        return self.game.without(self.order(walk)[step + 1 :])

    def whole_walks(self, done: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """The walks that are done whole, ascending.

        Partial walks are no fair sample: in a walk cut short only small coalitions were met.
        """
        if not done[0]:
            return np.array([], dtype=np.int64)
        return np.flatnonzero(done[1:].reshape(self.walks, self.players).all(axis=1))

    def gains(self, scores: npt.NDArray[np.float64], walks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(walks, players) What the score gains when each player joins those before it, in each of these walks."""
        steps = np.diff(scores[1:].reshape(self.walks, self.players)[walks], axis=1, prepend=float(scores[0]))
        gains = np.empty_like(steps)
        for row, walk in enumerate(walks):
            gains[row, self.order(int(walk))] = steps[row]
        return gains
