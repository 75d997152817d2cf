"""A case as a cooperative game: features are players that are present or take their baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from voxplain.v1 import method_pb2

from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.features.change import changed_features
from voxplain_server.features.feature_set import FeatureSet
from voxplain_server.methods.baselines import baseline_volumes
from voxplain_server.methods.estimate import FeatureValues
from voxplain_server.methods.feature_grouping import group_features
from voxplain_server.methods.fingerprint import CaseContent, Fingerprints
from voxplain_server.methods.method import Setting
from voxplain_server.models.case import Volumes


@dataclass(frozen=True, slots=True, eq=False)
class Game:
    """Players are the features that the baseline changes; the others are dummies, worth exactly zero, and never switched.

    Attributes:
        features: all features.
        players: (players,) the feature of each player, ascending.
        source: the baseline.
        base_score: score of the coalition of all players.
    """

    features: FeatureSet
    players: npt.NDArray[np.int64]
    source: Volumes
    base_score: float

    def without(self, absent: npt.NDArray[np.integer]) -> Perturbation:
        """The case in which some players, given by number, take their baseline."""
        features = self.players[np.sort(absent)]
        regions = tuple(region for feature in features for region in self.features.regions(int(feature)))
        return Perturbation(regions=regions, source=self.source)

    def fingerprints(self, content: CaseContent, absent: npt.NDArray[np.bool_]) -> Fingerprints:
        """(coalitions, 2) of cases in which the players of a row of `absent`, (coalitions, players), are at their baseline."""
        each = content.of_features(self.features, self.source)[self.players]
        sums = np.zeros((absent.shape[0], 2), np.uint64)
        for player, rows in enumerate(absent.T):
            sums[rows] += each[player]
        return sums

    def feature_values(
        self, values: npt.NDArray[np.float64], standard_errors: npt.NDArray[np.float64] | None = None
    ) -> FeatureValues:
        """Values of the players, (players,), as values of all features; dummies get zero and no error."""
        return FeatureValues(
            features=self.features,
            values=self._of_all(values),
            standard_errors=None if standard_errors is None else self._of_all(standard_errors),
        )

    def _of_all(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        everyone = np.zeros(self.features.count, dtype=np.float64)
        everyone[self.players] = values
        return everyone


def open_game(setting: Setting, baseline: method_pb2.Baseline, grouping: method_pb2.FeatureGrouping) -> Game:
    """Group the voxels of the case and find the players.

    Raises:
        voxplain.errors.VoxplainError: the case lacks what the baseline or the grouping needs.
    """
    features = group_features(grouping, setting.case, setting.features)
    source = baseline_volumes(baseline, setting.case, seed=setting.seed, key=setting.key, cache=setting.features)
    players = np.flatnonzero(changed_features(features, setting.case.volumes, source))
    return Game(features=features, players=players, source=source, base_score=setting.base_score)
