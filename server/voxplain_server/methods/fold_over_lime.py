"""LIME over a fold-over design."""

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
from voxplain_server.methods.feature_distance import cosine_distances
from voxplain_server.methods.fold_over_design import count_all_pairs, design_by_fold_over
from voxplain_server.methods.game import open_game
from voxplain_server.methods.method import Remark, Setting, Violation
from voxplain_server.methods.pair_plan import PairPlan
from voxplain_server.methods.pair_regression import fit_pairs
from voxplain_server.methods.parameter_defaults import slic_grouping, zero_baseline
from voxplain_server.methods.plan import Plan
from voxplain_server.methods.standard_error import relative_standard_error
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits

DEFAULT_SAMPLES = 500
MIN_SAMPLES = 2
MAX_SAMPLES = 1_000_000
DEFAULT_KERNEL_WIDTH = 1.0


class FoldOverLime:
    """Ribeiro, Singh, Guestrin 2016 (LIME), on the designs of Plackett and Burman 1946 and Box and Wilson 1951.

    The regression that LIME's coins sample from, and so what the coefficients converge to, is the same; only which coalitions
    stand for all of them is chosen with more care. The map holds the coefficients; the intercept is left out.
    """

    name = "fold-over-lime"
    variant_of = "lime"
    summary = "Fits a linear model to the scores of a balanced set of coalitions and their complements, weighted as in LIME."
    citation = (
        "Ribeiro, Singh, Guestrin 2016, doi 10.1145/2939672.2939778; "
        "Box and Wilson 1951, doi 10.1111/j.2517-6161.1951.tb00067.x"
    )
    assumptions: tuple[str, ...] = (
        "The baseline is neutral: the model does not read it as a finding.",
        "The score is close to linear in the features around the case.",
        "There are at least twice as many samples as features.",
    )
    signed = True
    shared_map = False
    needs_gradients = False

    def defaults(self, model: Model | None) -> method_pb2.FoldOverLime:
        """Zero baseline, SLIC per modality, 500 samples, kernel width 1."""
        return method_pb2.FoldOverLime(
            baseline=zero_baseline(),
            grouping=slic_grouping(model, shared=False),
            samples=DEFAULT_SAMPLES,
            kernel_width=DEFAULT_KERNEL_WIDTH,
        )

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """Samples and kernel width must be in range."""
        own = checked_cast(params, method_pb2.FoldOverLime)
        return [
            *outside(own, "samples", MIN_SAMPLES, MAX_SAMPLES),
            *outside(own, "kernel_width", 0.0, float("inf"), above=True),
        ]

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It works on every model."""
        return ()

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """The samples, as whole pairs."""
        samples = checked_cast(params, method_pb2.FoldOverLime).samples
        return samples - samples % 2

    def plan(self, setting: Setting) -> Plan:
        """Draw the coalitions and weigh them.

        Raises:
            voxplain.errors.VoxplainError: the case lacks what the baseline or the grouping needs, or COALITIONS_TOO_LARGE.
        """
        params = checked_cast(setting.params, method_pb2.FoldOverLime)
        game = open_game(setting, params.baseline, params.grouping)
        players = int(game.players.size)
        check_size(params.samples, players)
        first = design_by_fold_over(
            params.samples // 2, players, lambda name, number: philox(setting.seed, setting.key, name, number)
        )
        both = np.stack([first, ~first], axis=1).reshape(2 * len(first), players)
        distances = cosine_distances(game, setting.case.volumes, both).reshape(-1, 2)
        return PairPlan(
            game=game,
            first=first,
            ends=False,
            strata=np.zeros(len(first), dtype=np.int64),
            stratum_pairs=np.array([count_all_pairs(players)]),
            weights=np.exp(-(distances**2) / (2.0 * params.kernel_width**2)),
            block_size=setting.block_size,
        )

    def estimate(self, plan: Plan, scores: npt.NDArray[np.float64], done: npt.NDArray[np.bool_]) -> Estimate:
        """Regress over the pairs that are done whole."""
        own = checked_cast(plan, PairPlan)
        saved = int((own.unchanged & done).sum())
        players = int(own.game.players.size)
        pairs = own.whole_pairs(done)
        if players == 0 or pairs.size == 0:
            return Estimate(by_feature=own.game.feature_values(np.full(players, np.nan)), saved=saved, signed=self.signed)
        fit = fit_pairs(
            own.first[pairs],
            scores[own.start :].reshape(-1, 2)[pairs],
            weights=own.weights[pairs],
            drawn=own.drawn_from(pairs)[1],
        )
        by_feature = own.game.feature_values(fit.coefficients, fit.standard_errors)
        return Estimate(
            by_feature=by_feature,
            standard_error=relative_standard_error(by_feature.values, by_feature.standard_errors),
            saved=saved,
            signed=self.signed,
            cautions=(UNDERDETERMINED,) if fit.rank < players else (),
        )


METHOD = FoldOverLime()
