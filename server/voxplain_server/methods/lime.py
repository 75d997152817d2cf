"""LIME: a linear model of the score around the case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from voxplain.v1 import method_pb2

from voxplain_server.methods.bounds import outside
from voxplain_server.methods.checked_cast import checked_cast
from voxplain_server.methods.coalition_plan import CoalitionPlan, check_size, distinct_coalitions
from voxplain_server.methods.draws import philox
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.feature_distance import cosine_distances
from voxplain_server.methods.game import open_game
from voxplain_server.methods.method import Remark, Setting, Violation
from voxplain_server.methods.parameter_defaults import slic_grouping, zero_baseline
from voxplain_server.methods.plan import Plan
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits

DEFAULT_SAMPLES = 500
MIN_SAMPLES = 2
MAX_SAMPLES = 1_000_000
DEFAULT_KERNEL_WIDTH = 1.0


class Lime:
    """Ribeiro, Singh, Guestrin, "Why should I trust you? Explaining the predictions of any classifier", KDD 2016.

    Each feature is present with probability 1/2. A coalition's weight is exp(-d^2 / (2 w^2)), d the cosine distance of the
    perturbed from the original volumes. The map holds the coefficients of the regression; its intercept is left out.
    """

    name = "lime"
    summary = "Fits a linear model to the scores of random coalitions, those that look like the case weighing more."
    citation = "Ribeiro, Singh, Guestrin 2016, doi 10.1145/2939672.2939778"
    assumptions: tuple[str, ...] = (
        "The baseline is neutral: the model does not read it as a finding.",
        "The score is close to linear in the features around the case.",
        "There are clearly more samples than features.",
    )
    signed = True
    shared_map = False
    needs_gradients = False

    def defaults(self, model: Model | None) -> method_pb2.Lime:
        """Zero baseline, SLIC per modality, 500 samples, kernel width 1."""
        return method_pb2.Lime(
            baseline=zero_baseline(),
            grouping=slic_grouping(model, shared=False),
            samples=DEFAULT_SAMPLES,
            kernel_width=DEFAULT_KERNEL_WIDTH,
        )

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """Samples and kernel width must be in range."""
        own = checked_cast(params, method_pb2.Lime)
        return [
            *outside(own, "samples", MIN_SAMPLES, MAX_SAMPLES),
            *outside(own, "kernel_width", 0.0, float("inf"), above=True),
        ]

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It works on every model."""
        return ()

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """The samples; coalitions drawn twice are evaluated once."""
        return checked_cast(params, method_pb2.Lime).samples

    def plan(self, setting: Setting) -> Plan:
        """Draw the coalitions and weigh them.

        Raises:
            voxplain.errors.VoxplainError: the case lacks what the baseline or the grouping needs, or COALITIONS_TOO_LARGE.
        """
        params = checked_cast(setting.params, method_pb2.Lime)
        game = open_game(setting, params.baseline, params.grouping)
        players = int(game.players.size)
        check_size(params.samples, players)
        drawn = philox(setting.seed, setting.key, "coalitions").random((params.samples, players)) < 0.5
        coalitions, draws = distinct_coalitions(drawn)
        distances = cosine_distances(game, setting.case.volumes, coalitions)
        return CoalitionPlan(
            game=game,
            coalitions=coalitions,
            draws=draws,
            weights=np.exp(-(distances**2) / (2.0 * params.kernel_width**2)),
            certain=np.zeros(coalitions.shape[0], dtype=np.bool_),
            block_size=setting.block_size,
        )

    def estimate(self, plan: Plan, scores: npt.NDArray[np.float64], done: npt.NDArray[np.bool_]) -> Estimate:
        """Regress."""
        own = checked_cast(plan, CoalitionPlan)
        return own.estimate(scores, done)


METHOD = Lime()
