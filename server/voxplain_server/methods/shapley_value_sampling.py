"""Shapley values by sampled permutations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from voxplain.errors import InvalidSpec
from voxplain.v1 import method_pb2

from voxplain_server.methods.bounds import outside
from voxplain_server.methods.checked_cast import checked_cast
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.feature_grouping import count_features
from voxplain_server.methods.game import open_game
from voxplain_server.methods.method import Remark, Setting, Violation
from voxplain_server.methods.parameter_defaults import slic_grouping, zero_baseline
from voxplain_server.methods.plan import MAX_EVALUATIONS, Plan
from voxplain_server.methods.standard_error import relative_standard_error
from voxplain_server.methods.walk_plan import WalkPlan
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits

DEFAULT_PERMUTATIONS = 25
MAX_PERMUTATIONS = 100_000


class ShapleyValueSampling:
    """Castro, Gomez, Tejada, "Polynomial calculation of the Shapley value based on sampling", 2009.

    A player's value is the mean, over random orders, of what the score gains when the player joins those before it.
    """

    name = "shapley-value-sampling"
    summary = "Adds the features to the baseline in random orders and averages what each adds to the score."
    citation = "Castro, Gomez, Tejada 2009, doi 10.1016/j.cor.2008.04.004"
    assumptions: tuple[str, ...] = (
        "The baseline is neutral: the model does not read it as a finding.",
        "Coalitions of present and absent features look natural enough for the model to answer sensibly.",
    )
    signed = True
    shared_map = False
    needs_gradients = False

    def defaults(self, model: Model | None) -> method_pb2.ShapleyValueSampling:
        """Zero baseline, SLIC per modality, 25 permutations."""
        return method_pb2.ShapleyValueSampling(
            baseline=zero_baseline(), grouping=slic_grouping(model, shared=False), permutations=DEFAULT_PERMUTATIONS
        )

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """Permutations must be in range."""
        return list(outside(checked_cast(params, method_pb2.ShapleyValueSampling), "permutations", 1, MAX_PERMUTATIONS))

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It works on every model."""
        return ()

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """The baseline, and one for each permutation and feature."""
        own = checked_cast(params, method_pb2.ShapleyValueSampling)
        return 1 + own.permutations * count_features(own.grouping, shapes)

    def plan(self, setting: Setting) -> Plan:
        """Draw nothing yet: every walk has a random stream of its own.

        Raises:
            voxplain.errors.VoxplainError: the case lacks what the baseline or the grouping needs, or TOO_MANY_EVALUATIONS.
        """
        params = checked_cast(setting.params, method_pb2.ShapleyValueSampling)
        game = open_game(setting, params.baseline, params.grouping)
        plan = WalkPlan(game=game, walks=params.permutations, seed=setting.seed, key=setting.key, block_size=setting.block_size)
        if plan.evaluations > MAX_EVALUATIONS:
            raise InvalidSpec("TOO_MANY_EVALUATIONS", "ask for fewer permutations or features", field="permutations")
        return plan

    def estimate(self, plan: Plan, scores: npt.NDArray[np.float64], done: npt.NDArray[np.bool_]) -> Estimate:
        """Average the gains over the walks that are done whole.

        Partial walks are left out: in a walk cut short only small coalitions were met, so its gains are no fair sample.
        Standard errors come from two walks on.
        """
        own = checked_cast(plan, WalkPlan)
        saved = int((own.unchanged & done).sum())
        whole = own.whole_walks(done)
        if whole.size == 0:
            return Estimate(by_feature=own.game.feature_values(np.full(own.players, np.nan)), saved=saved)
        baseline_score = float(scores[0])
        gains = own.gains(scores, whole)
        values = gains.sum(axis=0) / whole.size
        errors = gains.std(axis=0, ddof=1) / np.sqrt(whole.size) if whole.size > 1 else None
        by_feature = own.game.feature_values(values, errors)
        return Estimate(
            by_feature=by_feature,
            completeness_gap=own.game.base_score - baseline_score - float(values.sum()),
            standard_error=relative_standard_error(by_feature.values, by_feature.standard_errors),
            baseline_score=baseline_score,
            saved=saved,
            signed=self.signed,
        )


METHOD = ShapleyValueSampling()
