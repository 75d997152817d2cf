"""Games whose every coalition is known: a case of one voxel for each player, and a table of 2^players scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from voxplain.v1 import method_pb2
from voxplain.volume import Geometry
from voxplain_server.methods.estimate import Estimate, FeatureValues
from voxplain_server.methods.method import PerturbationMethod
from voxplain_server.models.case import Case

from tests.fakes import Explained, Formula, explain, fake_model

Numbers = npt.NDArray[np.float64]

VOXELS = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[1]))
"""Each voxel is a feature."""


class TableGame:
    """A game given by the score of each coalition; bit p of its number tells whether player p is present.

    The voxel of player p holds the root of its energy, so cosine distances are those of a case whose features have these
    energies.
    """

    def __init__(self, scores: Numbers, energies: Numbers | None = None) -> None:
        self.scores = scores
        self.players = int(scores.size).bit_length() - 1
        self.energies = np.ones(self.players) if energies is None else energies
        volume = np.sqrt(self.energies).astype(np.float32)[:, None, None]
        shape = (self.players, 1, 1)
        self.case = Case(model=fake_model((shape,)), volumes=(volume,), grids=(Geometry(shape=shape),))

    @property
    def coalitions(self) -> npt.NDArray[np.bool_]:
        """(2^players, players) True: present."""
        return (np.arange(self.scores.size)[:, None] >> np.arange(self.players)) & 1 > 0

    @property
    def formula(self) -> Formula:
        """The model."""
        places = 1 << np.arange(self.players)

        def score(volumes: Sequence[npt.NDArray[np.float32]]) -> float:
            return float(self.scores[int(places[volumes[0].ravel() != 0].sum())])

        return score

    def explain(self, method: PerturbationMethod, params: Message, *, seed: int = 0) -> Explained:
        """Run a method; its grouping is set."""
        params.grouping.CopyFrom(VOXELS)  # type: ignore[attr-defined]
        return explain(method, self.case, self.formula, params, seed=seed, block_size=1)

    def shapley(self) -> Numbers:
        """Shapley values from their definition as a sum over coalitions."""
        numbers, sizes = np.arange(self.scores.size), self.coalitions.sum(axis=1)
        # Every size of coalition that a player may join counts the same.
        of_size = np.array([np.sum(sizes == size) for size in range(self.players + 1)], dtype=np.float64)
        share = 1.0 / (of_size * np.maximum(self.players - np.arange(self.players + 1), 1))
        values = []
        for player in range(self.players):
            without = numbers[~self.coalitions[:, player]]
            values.append(np.sum(share[sizes[without]] * (self.scores[without | 1 << player] - self.scores[without])))
        return np.array(values)

    def lime_weights(self, kernel_width: float = 1.0) -> Numbers:
        """(2^players,) LIME's weight of each coalition."""
        cosine = np.sqrt(self.coalitions @ self.energies / self.energies.sum())
        return np.asarray(np.exp(-((1.0 - cosine) ** 2) / (2.0 * kernel_width**2)), dtype=np.float64)

    def lime(self, kernel_width: float = 1.0) -> Numbers:
        """Coefficients of the weighted regression over all coalitions, by its normal equations."""
        design = np.column_stack([np.ones(self.scores.size), self.coalitions])
        weights = self.lime_weights(kernel_width)
        solution = np.linalg.solve(design.T @ (weights[:, None] * design), design.T @ (weights * self.scores))
        return np.asarray(solution[1:], dtype=np.float64)


def random_game(players: int = 9, seed: int = 0) -> TableGame:
    """Squashed weighted sums and their products: interactions of all orders, smooth and of very different strength."""
    draws = np.random.default_rng(seed)
    present = (np.arange(2**players)[:, None] >> np.arange(players)) & 1
    sums = np.tanh(0.7 * present @ draws.standard_normal((players, 4)))
    scores = sums @ draws.standard_normal(4) + 2.0 * sums[:, 0] * sums[:, 1] - 1.5 * sums[:, 1] * sums[:, 2] * sums[:, 3]
    return TableGame(scores, draws.uniform(0.2, 1.0, players))


def polynomial_game(players: int, degree: int, seed: int = 0) -> TableGame:
    """All interactions of up to so many players, with random strengths."""
    draws = np.random.default_rng(seed)
    numbers = np.arange(2**players)
    scores = np.zeros(numbers.size)
    for subset in numbers:
        if subset.bit_count() <= degree:
            scores += draws.standard_normal() * (numbers & subset == subset)
    return TableGame(scores)


def found(estimate: Estimate) -> FeatureValues:
    """Values of the players; feature 0, the background, has no voxel."""
    assert estimate.by_feature is not None
    return estimate.by_feature


def coverage(
    game: TableGame, method: PerturbationMethod, params: Message, exact: Numbers, *, seeds: int
) -> tuple[float, float]:
    """Over seeds and players: how often the exact value lies within 1.96 standard errors, and mean squared error over mean
    squared standard error."""
    off, errors = [], []
    for seed in range(seeds):
        run = game.explain(method, params, seed=seed)
        values = found(method.estimate(run.plan, run.scores, run.all_done))
        assert values.standard_errors is not None
        off.append(values.values[1:] - exact)
        errors.append(values.standard_errors[1:])
    distances, deviations = np.abs(np.array(off)), np.array(errors)
    return float((distances <= 1.96 * deviations).mean()), float((distances**2).mean() / (deviations**2).mean())
