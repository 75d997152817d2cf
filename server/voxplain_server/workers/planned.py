"""A method's plan, cut into blocks that suit the engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from voxplain.v1 import explain_pb2

from voxplain_server.methods.method import PerturbationMethod, Setting
from voxplain_server.methods.plan import Block, Plan
from voxplain_server.workers.case_links import CaseLinks, no_links
from voxplain_server.workers.execution import block_of_plan
from voxplain_server.workers.plan_cost import estimate_cost

if TYPE_CHECKING:
    from voxplain_server.engines.incremental_engine import IncrementalEvaluator


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """What is to be evaluated.

    Attributes:
        plan: its perturbations.
        blocks: the plan's, made once.
        links: which of its evaluations are known from elsewhere.
        seconds_each: estimate of one evaluation that needs a pass.
    """

    plan: Plan
    blocks: tuple[Block, ...]
    links: CaseLinks
    seconds_each: float

    @property
    def needed(self) -> npt.NDArray[np.bool_]:
        """(evaluations,) those that need a pass."""
        return np.asarray(~self.plan.unchanged & ~self.links.taken, dtype=np.bool_)

    @property
    def seconds(self) -> float:
        """Estimate of all its evaluations."""
        return self.seconds_each * int(self.needed.sum())

    def linked(self, links: CaseLinks) -> Planned:
        """The same with links."""
        return replace(self, links=links)


def plan_method(
    method: PerturbationMethod,
    setting: Setting,
    spec: explain_pb2.ExplainSpec,
    *,
    incremental: IncrementalEvaluator | None,
    pass_seconds: float,
) -> Planned:
    """Plan a method: the same blocks on every worker.

    Args:
        method: the method.
        setting: what it may look at; its block size is the largest.
        spec: the call.
        incremental: the engine, where it recomputes only what changes.
        pass_seconds: what a whole pass takes.
    """
    plan = method.plan(setting)
    cost = estimate_cost(plan, setting.case, setting.traits, incremental=incremental, pass_seconds=pass_seconds)
    blocks = plan.blocks
    if incremental is not None:
        share = 1.0 if any(block.chain for block in blocks) else cost.share
        size = block_of_plan(setting.case.model, spec, most=setting.block_size, share=share)
        if size != setting.block_size:
            plan = method.plan(replace(setting, block_size=size))
            blocks = plan.blocks
    return Planned(plan, blocks, no_links(plan.evaluations), cost.seconds_each)
