"""Coalitions drawn at random, each evaluated once however often it was drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from voxplain.errors import InvalidSpec

from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.fingerprint import CaseContent, Fingerprints
from voxplain_server.methods.game import Game
from voxplain_server.methods.plan import Block, cut
from voxplain_server.methods.regression import Fit, fit_linear
from voxplain_server.methods.standard_error import relative_standard_error

MAX_CELLS = 1 << 27
"""Most samples times players: the regression holds eight bytes for each."""

UNDERDETERMINED = (
    "UNDERDETERMINED",
    "There are fewer independent coalitions than features, so the values are only one of many that fit. Ask for more samples "
    "or fewer features.",
)


@dataclass(frozen=True, slots=True, eq=False)
class CoalitionPlan:
    """The distinct coalitions among the draws, in the order of their first draw.

    Attributes:
        game: the players.
        coalitions: (evaluations, players) True: present.
        draws: (samples,) the coalition of each draw.
        weights: (evaluations,) weight of one draw of each coalition in the regression.
        certain: (evaluations,) coalitions that are always there and not drawn.
        block_size: evaluations in one block.
    """

    game: Game
    coalitions: npt.NDArray[np.bool_]
    draws: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    certain: npt.NDArray[np.bool_]
    block_size: int

    @property
    def evaluations(self) -> int:
        """One for each distinct coalition."""
        return int(self.coalitions.shape[0])

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Equal ranges; two coalitions are the fewest that can be fitted."""
        return cut(self.evaluations, self.block_size, least=2)

    @property
    def features(self) -> int | None:
        """Features that are switched."""
        return int(self.game.players.size)

    @property
    def unchanged(self) -> npt.NDArray[np.bool_]:
        """The coalition of all players."""
        return np.asarray(self.coalitions.all(axis=1), dtype=np.bool_)

    @property
    def distinct(self) -> bool:
        """Equal draws are one evaluation."""
        return True

    def fingerprints(self, content: CaseContent) -> Fingerprints:
        """Sums over the absent players."""
        return self.game.fingerprints(content, ~self.coalitions)

    def perturbation(self, index: int) -> Perturbation:
        """Absent players take their baseline."""
        return self.game.without(np.flatnonzero(~self.coalitions[index]))

    def usable_draws(self, done: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """(evaluations,) How often each coalition was drawn before the first draw that is not done.

        Later draws do not count even where their coalition is known: those are the coalitions drawn often, so counting
        them would favour them.
        """
        there = done[self.draws]
        stop = self.draws.size if there.all() else int(np.argmin(there))
        return np.bincount(self.draws[:stop], minlength=self.evaluations)

    def fit(self, scores: npt.NDArray[np.float64], done: npt.NDArray[np.bool_]) -> Fit | None:
        """Regress the scores of the usable draws on their coalitions; None before there are two coalitions."""
        counts = self.usable_draws(done)
        used = counts > 0
        if used.sum() < 2:
            return None
        return fit_linear(
            self.coalitions[used],
            scores[used],
            weights=self.weights[used],
            draws=counts[used],
            certain=self.certain[used],
        )

    def estimate(self, scores: npt.NDArray[np.float64], done: npt.NDArray[np.bool_]) -> Estimate:
        """The coefficients as values of the features."""
        saved = int((self.unchanged & done).sum())
        players = self.game.players.size
        if players == 0:
            return Estimate(by_feature=self.game.feature_values(np.zeros(0)), saved=saved)
        fit = self.fit(scores, done)
        if fit is None:
            return Estimate(by_feature=self.game.feature_values(np.full(players, np.nan)), saved=saved)
        by_feature = self.game.feature_values(fit.coefficients, fit.standard_errors)
        return Estimate(
            by_feature=by_feature,
            standard_error=relative_standard_error(by_feature.values, by_feature.standard_errors),
            saved=saved,
            cautions=(UNDERDETERMINED,) if fit.rank < players else (),
        )


def distinct_coalitions(drawn: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Tell apart the coalitions among the draws.

    Args:
        drawn: (samples, players).

    Returns:
        The distinct coalitions in the order of their first draw, (distinct, players), and the number of the coalition of
        each draw, (samples,).
    """
    packed = np.packbits(drawn, axis=1)
    if packed.shape[1] == 0:
        return drawn[:1], np.zeros(drawn.shape[0], dtype=np.int64)
    _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    by_first_draw = np.argsort(first)
    rank = np.empty_like(by_first_draw)
    rank[by_first_draw] = np.arange(by_first_draw.size)
    return drawn[first[by_first_draw]], rank[which.reshape(-1)]


def check_size(samples: int, players: int) -> None:
    """Refuse a design that would not fit into memory.

    Raises:
        voxplain.errors.InvalidSpec: COALITIONS_TOO_LARGE.
    """
    if samples * max(players, 1) > MAX_CELLS:
        raise InvalidSpec(
            "COALITIONS_TOO_LARGE",
            f"samples times features may be at most {MAX_CELLS:,}; ask for fewer samples or features",
            field="samples",
        )
