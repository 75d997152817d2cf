"""Leverage SHAP: Shapley values by regression over pairs of coalitions drawn by leverage score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from voxplain.v1 import method_pb2

from voxplain_server.methods.bounds import outside
from voxplain_server.methods.checked_cast import checked_cast
from voxplain_server.methods.coalition_plan import UNDERDETERMINED, check_size
from voxplain_server.methods.draws import philox
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.game import open_game
from voxplain_server.methods.leverage_design import design_by_leverage
from voxplain_server.methods.method import Remark, Setting, Violation
from voxplain_server.methods.pair_plan import PairPlan
from voxplain_server.methods.pair_regression import fit_differences
from voxplain_server.methods.parameter_defaults import slic_grouping, zero_baseline
from voxplain_server.methods.plan import Plan
from voxplain_server.methods.regression import Fit
from voxplain_server.methods.standard_error import relative_standard_error
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits

DEFAULT_SAMPLES = 300
MIN_SAMPLES = 4
MAX_SAMPLES = 1_000_000
FEW_SAMPLES = (
    "FEW_SAMPLES",
    "There are fewer than about four coalitions for each feature: the values are drawn towards equal shares, and their error "
    "is not known. Ask for more samples or fewer features.",
)


class LeverageShap:
    """Musco and Witter, "Provably accurate Shapley value estimation via leverage score sampling", ICLR 2025.

    Coalitions are drawn with their complements, without replacement, the same number of each size; each stands in the
    regression for all that its size has. The full and the empty coalition are met exactly.
    """

    name = "leverage-shap"
    variant_of = "kernel-shap"
    summary = "Fits a linear model to the scores of pairs of complementary coalitions; its coefficients are Shapley values."
    citation = "Musco and Witter 2024, arXiv 2410.01917; Lundberg and Lee 2017, arXiv 1705.07874"
    assumptions: tuple[str, ...] = (
        "The baseline is neutral: the model does not read it as a finding.",
        "Coalitions of present and absent features look natural enough for the model to answer sensibly.",
        "There are at least four times as many samples as features.",
    )
    signed = True
    shared_map = False
    needs_gradients = False

    def defaults(self, model: Model | None) -> method_pb2.LeverageShap:
        """Zero baseline, shared SLIC, 300 samples."""
        return method_pb2.LeverageShap(
            baseline=zero_baseline(), grouping=slic_grouping(model, shared=True), samples=DEFAULT_SAMPLES
        )

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """Samples must be in range."""
        return list(outside(checked_cast(params, method_pb2.LeverageShap), "samples", MIN_SAMPLES, MAX_SAMPLES))

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It works on every model."""
        return ()

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """The samples, as whole pairs."""
        samples = checked_cast(params, method_pb2.LeverageShap).samples
        return samples - samples % 2

    def plan(self, setting: Setting) -> Plan:
        """Draw the coalitions.

        Raises:
            voxplain.errors.VoxplainError: the case lacks what the baseline or the grouping needs, or COALITIONS_TOO_LARGE.
        """
        params = checked_cast(setting.params, method_pb2.LeverageShap)
        game = open_game(setting, params.baseline, params.grouping)
        players = int(game.players.size)
        check_size(params.samples, players)
        design = design_by_leverage(
            params.samples // 2 - 1, players, lambda size: philox(setting.seed, setting.key, "size", size)
        )
        # The Shapley kernel of all pairs of a size together; the size that is its own complement has half the coalitions.
        size = design.strata + 1.0
        kernel = np.where(2 * size == players, 0.5, 1.0) / (size * (players - size))
        return PairPlan(
            game=game,
            first=design.first,
            ends=True,
            strata=design.strata,
            stratum_pairs=design.stratum_pairs,
            weights=np.repeat(kernel[:, None], 2, axis=1),
            block_size=setting.block_size,
        )

    def estimate(self, plan: Plan, scores: npt.NDArray[np.float64], done: npt.NDArray[np.bool_]) -> Estimate:
        """Regress over the pairs that are done whole, each standing for its share of all of its size."""
        own = checked_cast(plan, PairPlan)
        saved = int((own.unchanged & done).sum())
        players = int(own.game.players.size)
        if not done[:2].all():
            return Estimate(by_feature=own.game.feature_values(np.full(players, np.nan)), saved=saved)
        baseline_score = float(scores[1])
        total = own.game.base_score - baseline_score
        pairs = own.whole_pairs(done)
        if players < 2:
            fit = Fit(np.full(players, total), intercept=0.0, standard_errors=np.zeros(players), rank=players - 1)
        elif pairs.size == 0:
            return Estimate(by_feature=own.game.feature_values(np.full(players, np.nan)), saved=saved)
        else:
            counts, drawn = own.drawn_from(pairs)
            first, complement = scores[own.start :].reshape(-1, 2)[pairs].T
            fit = fit_differences(
                own.first[pairs],
                0.5 * (first - baseline_score + own.game.base_score - complement),
                total=total,
                weights=own.weights[pairs, 0] / counts,
                drawn=drawn,
            )
        few = FEW_SAMPLES if fit.rank >= players - 1 else UNDERDETERMINED
        by_feature = own.game.feature_values(fit.coefficients, fit.standard_errors)
        return Estimate(
            by_feature=by_feature,
            completeness_gap=total - float(fit.coefficients.sum()),
            standard_error=relative_standard_error(by_feature.values, by_feature.standard_errors),
            baseline_score=baseline_score,
            saved=saved,
            signed=self.signed,
            cautions=() if fit.standard_errors is not None else (few,),
        )


METHOD = LeverageShap()
