"""KernelSHAP: Shapley values by weighted regression over sampled coalitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from voxplain.v1 import method_pb2

from voxplain_server.methods.bounds import outside
from voxplain_server.methods.checked_cast import checked_cast
from voxplain_server.methods.coalition_plan import CoalitionPlan, check_size, distinct_coalitions
from voxplain_server.methods.draws import philox
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.game import open_game
from voxplain_server.methods.method import Remark, Setting, Violation
from voxplain_server.methods.parameter_defaults import slic_grouping, zero_baseline
from voxplain_server.methods.plan import Plan
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits

DEFAULT_SAMPLES = 300
MIN_SAMPLES = 3
MAX_SAMPLES = 1_000_000
END_WEIGHT = 1e6
"""Stands for the infinite weight that the Shapley kernel gives to the empty and the full coalition."""


class KernelShap:
    """Lundberg and Lee, "A unified approach to interpreting model predictions", NeurIPS 2017.

    Draw 0 is the full coalition and draw 1 the empty one, each of weight 1e6. Every other draw has a size k from
    p(k) ~ 1 / (k (F - k)) and is uniform among the coalitions of that size, which together is the Shapley kernel, so its
    weight in the regression is 1.
    """

    name = "kernel-shap"
    summary = "Fits a linear model to the scores of random coalitions, drawn so that its coefficients are Shapley values."
    citation = "Lundberg and Lee 2017, arXiv 1705.07874"
    assumptions: tuple[str, ...] = (
        "The baseline is neutral: the model does not read it as a finding.",
        "Coalitions of present and absent features look natural enough for the model to answer sensibly.",
        "There are clearly more samples than features.",
    )
    signed = True
    shared_map = False
    needs_gradients = False

    def defaults(self, model: Model | None) -> method_pb2.KernelShap:
        """Zero baseline, shared SLIC, 300 samples."""
        return method_pb2.KernelShap(
            baseline=zero_baseline(), grouping=slic_grouping(model, shared=True), samples=DEFAULT_SAMPLES
        )

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """Samples must be in range."""
        return list(outside(checked_cast(params, method_pb2.KernelShap), "samples", MIN_SAMPLES, MAX_SAMPLES))

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It works on every model."""
        return ()

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """The samples; coalitions drawn twice are evaluated once."""
        return checked_cast(params, method_pb2.KernelShap).samples

    def plan(self, setting: Setting) -> Plan:
        """Draw the coalitions.

        Raises:
            voxplain.errors.VoxplainError: the case lacks what the baseline or the grouping needs, or COALITIONS_TOO_LARGE.
        """
        params = checked_cast(setting.params, method_pb2.KernelShap)
        game = open_game(setting, params.baseline, params.grouping)
        players = int(game.players.size)
        check_size(params.samples, players)
        drawn = draw_coalitions(params.samples, players, philox(setting.seed, setting.key, "coalitions"))
        coalitions, draws = distinct_coalitions(drawn)
        present = coalitions.sum(axis=1)
        ends = (present == 0) | (present == players)
        return CoalitionPlan(
            game=game,
            coalitions=coalitions,
            draws=draws,
            weights=np.where(ends, END_WEIGHT, 1.0),
            certain=ends,
            block_size=setting.block_size,
        )

    def estimate(self, plan: Plan, scores: npt.NDArray[np.float64], done: npt.NDArray[np.bool_]) -> Estimate:
        """Regress; the completeness gap is what the weight 1e6 leaves of it."""
        own = checked_cast(plan, CoalitionPlan)
        estimate = own.estimate(scores, done)
        if own.game.players.size == 0:
            return replace(estimate, completeness_gap=0.0, baseline_score=own.game.base_score)
        if not done[:2].all() or estimate.by_feature is None:
            return estimate
        baseline_score = float(scores[1])
        gap = own.game.base_score - baseline_score - float(estimate.by_feature.values.sum())
        return replace(estimate, completeness_gap=gap, baseline_score=baseline_score)


def draw_coalitions(samples: int, players: int, draws: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Draw coalitions, (samples, players): the full one, the empty one, then by the Shapley kernel.

    With fewer than two players there is nothing between the ends, so those two are all.
    """
    ends = np.array([[True] * players, [False] * players], dtype=np.bool_).reshape(2, players)
    if players < 2:
        return ends
    sizes = np.arange(1, players)
    kernel = 1.0 / (sizes * (players - sizes))
    size = draws.choice(sizes, size=samples - 2, p=kernel / kernel.sum())
    places = draws.random((samples - 2, players)).argsort(axis=1).argsort(axis=1)
    return np.concatenate([ends, places < size[:, None]])


METHOD = KernelShap()
