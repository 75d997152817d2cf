"""What the evaluations of a plan take, before any of them is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from voxplain_server.methods.plan import Plan
from voxplain_server.models.case import Case
from voxplain_server.models.traits import ModelTraits

if TYPE_CHECKING:
    from voxplain_server.engines.incremental_engine import IncrementalEvaluator

_LOOKED_AT = 16


@dataclass(frozen=True, slots=True)
class PlanCost:
    """Counted and estimated work.

    Attributes:
        share: operations of one evaluation over those of a whole pass, on average over those that change anything.
        seconds_each: of one of them, on average.
    """

    share: float
    seconds_each: float


def estimate_cost(
    plan: Plan, case: Case, traits: ModelTraits, *, incremental: IncrementalEvaluator | None, pass_seconds: float
) -> PlanCost:
    """Look at some perturbations and multiply: a pure function of its arguments.

    Args:
        plan: what is to be evaluated.
        case: the unperturbed case.
        traits: hold the measured rates.
        incremental: the engine, where it recomputes only what changes; None: every evaluation is a whole pass.
        pass_seconds: what a whole pass takes.
    """
    changed = np.flatnonzero(~plan.unchanged)
    if incremental is None or changed.size == 0:
        return PlanCost(1.0, pass_seconds)
    places = np.unique(np.linspace(0, changed.size - 1, _LOOKED_AT).round().astype(np.int64))
    shares = incremental.shares([plan.perturbation(int(changed[place])) for place in places], case)
    choice = traits.engine_choice
    seconds = [
        pass_seconds * float(share) if choice is None else choice.seconds_of(float(share), whole=pass_seconds)
        for share in shares
    ]
    return PlanCost(float(shares.mean()), float(np.mean(seconds)))
