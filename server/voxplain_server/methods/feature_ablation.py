"""Feature ablation: what the score loses when one feature takes its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from voxplain.v1 import method_pb2

from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.features.change import changed_features
from voxplain_server.features.feature_set import FeatureSet
from voxplain_server.methods.baselines import baseline_volumes
from voxplain_server.methods.checked_cast import checked_cast
from voxplain_server.methods.estimate import Estimate, FeatureValues
from voxplain_server.methods.feature_grouping import count_features, group_features
from voxplain_server.methods.fingerprint import CaseContent, Fingerprints
from voxplain_server.methods.method import Remark, Setting, Violation
from voxplain_server.methods.parameter_defaults import slic_grouping, zero_baseline
from voxplain_server.methods.plan import Block, Plan, cut
from voxplain_server.models.case import Volumes
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits


@dataclass(frozen=True, slots=True, eq=False)
class FeatureAblationPlan:
    """One perturbation for each feature, the largest first, so that early snapshots cover most voxels.

    Attributes:
        grouped: the features.
        order: (evaluations,) the feature of each evaluation.
        unchanged: (evaluations,) features that equal their baseline.
        source: the baseline.
        base_score: score of the case.
        block_size: evaluations in one block.
    """

    grouped: FeatureSet
    order: npt.NDArray[np.int64]
    unchanged: npt.NDArray[np.bool_]
    source: Volumes
    base_score: float
    block_size: int

    @property
    def evaluations(self) -> int:
        """One for each feature that has voxels."""
        return int(self.order.size)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Equal ranges."""
        return cut(self.evaluations, self.block_size)

    @property
    def features(self) -> int | None:
        """Features that the baseline changes."""
        return int((~self.unchanged).sum())

    @property
    def distinct(self) -> bool:
        """Every feature is switched once."""
        return True

    def fingerprints(self, content: CaseContent) -> Fingerprints:
        """Of one feature each."""
        return content.of_features(self.grouped, self.source)[self.order]

    def perturbation(self, index: int) -> Perturbation:
        """One feature at its baseline."""
        return Perturbation(regions=self.grouped.regions(int(self.order[index])), source=self.source)


class FeatureAblation:
    """A feature's attribution is f(case) - f(case with the feature at its baseline), as Captum's FeatureAblation."""

    name = "feature-ablation"
    summary = "Sets one feature at a time to its baseline and gives it the drop of the score."
    citation = "Zeiler and Fergus 2014, doi 10.1007/978-3-319-10590-1_53, with features in place of windows"
    assumptions: tuple[str, ...] = (
        "The baseline is neutral: the model does not read it as a finding.",
        "Features act alone: evidence that two features hold both is missed when either is removed alone.",
    )
    signed = True
    shared_map = False
    needs_gradients = False

    def defaults(self, model: Model | None) -> method_pb2.FeatureAblation:
        """Zero baseline, SLIC per modality."""
        return method_pb2.FeatureAblation(baseline=zero_baseline(), grouping=slic_grouping(model, shared=False))

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """Baseline and grouping are checked for all methods alike."""
        return ()

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It works on every model."""
        return ()

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """One for each feature and one for the background."""
        return count_features(checked_cast(params, method_pb2.FeatureAblation).grouping, shapes) + 1

    def plan(self, setting: Setting) -> Plan:
        """Order the features by their voxels.

        Raises:
            voxplain.errors.VoxplainError: the case lacks what the baseline or the grouping needs.
        """
        params = checked_cast(setting.params, method_pb2.FeatureAblation)
        features = group_features(params.grouping, setting.case, setting.features)
        source = baseline_volumes(params.baseline, setting.case, seed=setting.seed, key=setting.key, cache=setting.features)
        voxels = sum(np.bincount(labels.ravel(), minlength=features.count) for labels in features.labels)
        order = np.argsort(-voxels, kind="stable")[: int(np.count_nonzero(voxels))]
        return FeatureAblationPlan(
            grouped=features,
            order=order,
            unchanged=~changed_features(features, setting.case.volumes, source)[order],
            source=source,
            base_score=setting.base_score,
            block_size=setting.block_size,
        )

    def estimate(self, plan: Plan, scores: npt.NDArray[np.float64], done: npt.NDArray[np.bool_]) -> Estimate:
        """Give each feature its drop; features not done are NaN and uncovered."""
        own = checked_cast(plan, FeatureAblationPlan)
        values = np.zeros(own.grouped.count)
        values[own.order] = np.where(done, own.base_score - np.where(done, scores, 0.0), np.nan)
        reached = np.zeros(own.grouped.count)
        reached[own.order] = done
        return Estimate(
            by_feature=FeatureValues(features=own.grouped, values=values),
            coverage=own.grouped.paint(reached),
            saved=int((own.unchanged & done).sum()),
            signed=self.signed,
        )


METHOD = FeatureAblation()
