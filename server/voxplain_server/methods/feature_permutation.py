"""Feature permutation: what the score loses when a feature is taken from another case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from voxplain.errors import UnsupportedByModel
from voxplain.v1 import method_pb2

from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.features.change import changed_features
from voxplain_server.features.feature_set import FeatureSet
from voxplain_server.methods.baselines import background_case
from voxplain_server.methods.checked_cast import checked_cast
from voxplain_server.methods.estimate import Estimate, FeatureValues
from voxplain_server.methods.feature_grouping import count_features, group_features
from voxplain_server.methods.fingerprint import CaseContent, Fingerprints
from voxplain_server.methods.method import Remark, Setting, Violation
from voxplain_server.methods.parameter_defaults import slic_grouping
from voxplain_server.methods.plan import Block, Plan, cut
from voxplain_server.methods.standard_error import relative_standard_error
from voxplain_server.models.case import Volumes
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits


@dataclass(frozen=True, slots=True, eq=False)
class DonorPlan:
    """One perturbation for each donor and feature; the first donor's features come first.

    Attributes:
        grouped: the features.
        switched: (switched,) features that have voxels.
        unchanged: (evaluations,) where donor and case agree on the whole feature.
        donors: the cases that values are taken from.
        base_score: score of the case.
        block_size: evaluations in one block.
    """

    grouped: FeatureSet
    switched: npt.NDArray[np.int64]
    unchanged: npt.NDArray[np.bool_]
    donors: tuple[Volumes, ...]
    base_score: float
    block_size: int

    @property
    def evaluations(self) -> int:
        """Donors times features."""
        return len(self.donors) * int(self.switched.size)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Equal ranges."""
        return cut(self.evaluations, self.block_size)

    @property
    def features(self) -> int | None:
        """Features that are switched."""
        return int(self.switched.size)

    @property
    def distinct(self) -> bool:
        """Two donors may agree on a feature."""
        return len(self.donors) == 1

    def fingerprints(self, content: CaseContent) -> Fingerprints:
        """Of one feature each, donor by donor."""
        return np.concatenate([content.of_features(self.grouped, donor)[self.switched] for donor in self.donors])

    def perturbation(self, index: int) -> Perturbation:
        """One feature of one donor."""
        donor, place = divmod(index, int(self.switched.size))
        return Perturbation(regions=self.grouped.regions(int(self.switched[place])), source=self.donors[donor])


class FeaturePermutation:
    """Permutation importance for one case: Fisher, Rudin, Dominici, "All models are wrong, but many are useful", JMLR 2019.

    A feature's attribution is f(case) - f(case with the feature's voxels from a donor), averaged over all donors. For one
    donor that is a row of Captum's FeaturePermutation on a batch whose permutation picks that donor.
    """

    name = "feature-permutation"
    summary = "Takes one feature at a time from other cases and gives it the mean drop of the score."
    citation = "Fisher, Rudin, Dominici 2019, arXiv 1801.01489"
    assumptions: tuple[str, ...] = (
        "Background cases are typical of the population and lie in the same space, voxel by voxel.",
        "A patch of another patient fits into this one without seams that the model would read.",
    )
    signed = True
    shared_map = False
    needs_gradients = False

    def defaults(self, model: Model | None) -> method_pb2.FeaturePermutation:
        """Shared SLIC."""
        return method_pb2.FeaturePermutation(grouping=slic_grouping(model, shared=True))

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """The grouping is checked for all methods alike."""
        return ()

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It needs background cases; a request may bring what the bundle lacks."""
        if traits.background_cases:
            return ()
        return (Remark("NO_DONORS", "The model holds no background cases: send some with the role BACKGROUND.", fatal=False),)

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """Features and the background, for one donor."""
        return self.count_donor_evaluations(params, shapes, donors=1)

    def count_donor_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]], *, donors: int) -> int:
        """Features and the background, for each donor."""
        return donors * (count_features(checked_cast(params, method_pb2.FeaturePermutation).grouping, shapes) + 1)

    def plan(self, setting: Setting) -> Plan:
        """Pair donors and features.

        Raises:
            voxplain.errors.UnsupportedByModel: NO_DONORS, or BASELINE_GRID_DIFFERS where a donor has another shape.
            voxplain.errors.VoxplainError: the case lacks what the grouping needs.
        """
        case = setting.case
        if not case.donors:
            raise UnsupportedByModel(
                "NO_DONORS", "there are no background cases to take features from: send some with the role BACKGROUND"
            )
        donors = tuple(background_case(case, index) for index in range(len(case.donors)))
        features = group_features(checked_cast(setting.params, method_pb2.FeaturePermutation).grouping, case, setting.features)
        switched = np.unique(np.concatenate([np.unique(labels) for labels in features.labels])).astype(np.int64)
        unchanged = [~changed_features(features, case.volumes, donor)[switched] for donor in donors]
        return DonorPlan(
            grouped=features,
            switched=switched,
            unchanged=np.concatenate(unchanged),
            donors=donors,
            base_score=setting.base_score,
            block_size=setting.block_size,
        )

    def estimate(self, plan: Plan, scores: npt.NDArray[np.float64], done: npt.NDArray[np.bool_]) -> Estimate:
        """Average each feature over the donors done so far; the standard error needs two of them for every feature."""
        own = checked_cast(plan, DonorPlan)
        there = done.reshape(len(own.donors), own.switched.size)
        drops = np.where(there, own.base_score - np.where(done, scores, 0.0).reshape(there.shape), 0.0)
        donors = there.sum(axis=0)
        means = np.divide(drops.sum(axis=0), donors, out=np.full(own.switched.size, np.nan), where=donors > 0)
        values = np.zeros(own.grouped.count)
        values[own.switched] = means
        errors = None
        if donors.min(initial=len(own.donors)) >= 2:
            squares = np.where(there, (drops - means) ** 2, 0.0).sum(axis=0)
            errors = np.zeros(own.grouped.count)
            errors[own.switched] = np.sqrt(squares / (donors - 1) / donors)
        return Estimate(
            by_feature=FeatureValues(features=own.grouped, values=values, standard_errors=errors),
            standard_error=relative_standard_error(values, errors),
            saved=int((own.unchanged & done).sum()),
            signed=self.signed,
        )


METHOD = FeaturePermutation()
