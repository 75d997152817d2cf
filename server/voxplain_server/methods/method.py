"""What a method is: a noun with defaults, checks, and either a plan and an estimate, or a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from voxplain_server.engines.engine import Cancelled, Differentiable
from voxplain_server.features.feature_cache import FeatureCache
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.pass_cache import PassCache
from voxplain_server.methods.plan import Plan
from voxplain_server.models.case import Case
from voxplain_server.models.model import Model
from voxplain_server.models.score import Score
from voxplain_server.models.traits import ModelTraits


@dataclass(frozen=True, slots=True)
class Violation:
    """A parameter that cannot be.

    Attributes:
        field: path below the method's message, for example `window` or `grouping.slic.segments`.
        reason: UPPER_SNAKE_CASE code.
        message: what is wrong and what to do, without the value.
    """

    field: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Remark:
    """Why a method does not work on a model, or what limits it there.

    Attributes:
        reason: UPPER_SNAKE_CASE code, for example NO_RELU.
        message: plain words and the remedy.
        fatal: True: the method does not work.
    """

    reason: str
    message: str
    fatal: bool


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """All that a method may look at.

    Attributes:
        case: the volumes and what the client sent with them.
        score: the score that is explained.
        base_score: that score on the unperturbed case, from the engine that evaluates.
        params: the method's own message, every parameter filled in.
        seed: the call's seed. A method draws from `philox(seed, key, ...)` only.
        key: the method's key in the call.
        traits: facts about the model's graph.
        block_size: evaluations in one block.
        features: groupings and baselines already made for this case; one for all methods of a call saves making them again.
        passes: gradient passes already done for this case and score; one for all methods of a call saves their passes.
    """

    case: Case
    score: Score
    base_score: float
    params: Message
    seed: int
    key: str
    traits: ModelTraits
    block_size: int
    features: FeatureCache = field(default_factory=FeatureCache)
    passes: PassCache = field(default_factory=PassCache)


@runtime_checkable
class Method(Protocol):
    """What every method has. Each file of this folder that defines `METHOD` is found and registered.

    Attributes:
        name: kebab name; with underscores it is the field of the Method message.
        summary, citation: one sentence, and the paper.
        assumptions: what it takes for granted, plain words.
        signed: whether the sign of a value has a meaning, by default.
        shared_map: whether one map serves the modalities of an input.
        needs_gradients: whether it is a GradientMethod.
    """

    name: str
    summary: str
    citation: str
    assumptions: tuple[str, ...]
    signed: bool
    shared_map: bool
    needs_gradients: bool

    def defaults(self, model: Model | None) -> Message:
        """The method's message with every parameter at its default (for this model where that matters)."""

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """What is wrong with resolved parameters, as far as it can be told without a case."""

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """Why it does not work on this model, or what limits it."""

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """Evaluations it will take on modalities of these shapes (an estimate where features are SLIC's)."""


@runtime_checkable
class PerturbationMethod(Method, Protocol):
    """Asks the model what it answers on perturbed cases."""

    def plan(self, setting: Setting) -> Plan:
        """Decide which perturbations: a pure function of the setting.

        Raises:
            voxplain.errors.VoxplainError: this case does not allow it (a window larger than the volume, no donors, ...).
        """

    def estimate(self, plan: Plan, scores: npt.NDArray[np.float64], done: npt.NDArray[np.bool_]) -> Estimate:
        """Tell what the scores so far mean: a pure function.

        Args:
            plan: what `plan` gave.
            scores: (plan.evaluations,); entries that are not done have no meaning.
            done: (plan.evaluations,) which of them are there.
        """


@runtime_checkable
class DonorMethod(PerturbationMethod, Protocol):
    """Takes voxels from background cases; without any it does not work."""

    def count_donor_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]], *, donors: int) -> int:
        """As count_evaluations, for so many background cases."""


@runtime_checkable
class GradientMethod(Method, Protocol):
    """Differentiates the twin."""

    def attribute(
        self,
        setting: Setting,
        twin: Differentiable,
        *,
        advanced: Callable[[int], None],
        cancelled: Cancelled,
    ) -> Estimate:
        """Attribute the score to voxels.

        Args:
            setting: the case and the parameters.
            twin: the differentiable engine.
            advanced: called with the number of passes done, after each.
            cancelled: asked between passes.

        Returns:
            The map; where `cancelled()` became true, what a mean over samples is so far: fewer passes than were planned.

        Raises:
            voxplain.errors.Cancelled: `cancelled()` became true and there is nothing to give.
        """
