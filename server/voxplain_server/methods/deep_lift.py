"""DeepLIFT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from google.protobuf.message import Message
from voxplain.v1 import method_pb2

from voxplain_server.engines.batched_scores import ask
from voxplain_server.engines.engine import Cancelled, Differentiable
from voxplain_server.methods.baselines import baseline_volumes
from voxplain_server.methods.checked_cast import checked_cast
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.input_gradients import as_maps, free_forward, quiet_captum
from voxplain_server.methods.method import GradientMethod, Remark, Setting, Violation
from voxplain_server.methods.parameter_defaults import zero_baseline
from voxplain_server.methods.twin_remarks import twin_remarks
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits

if TYPE_CHECKING:
    import torch

NOTABLE_GAP = 0.01
"""A completeness gap beyond this share of f(case) - f(baseline) is a caution."""

_Attributions = tuple[tuple["torch.Tensor", ...], float, float]


class DeepLift:
    """phi = m (x - b), m DeepLIFT's multipliers by the rescale rule.

    max_pool_rule CAPTUM gives what Captum's DeepLift gives, with all its rules, where they are sound and where not:
    engines/captum_rule.py takes case and baseline one after the other where Captum's rules keep them apart, and is Captum
    itself where they do not, which needs a batched model. COMPLETE is engines/rescale_rule.py: equal to Captum within 1e-9
    (float64) on models whose only non-linearities are ReLU, ELU, LeakyReLU, Sigmoid, Tanh and Softplus, complete through max
    pooling, softmax and the other activations besides; it is the default where the model's batch is fixed at 1.
    """

    name = "deep-lift"
    summary = "What every voxel contributes to the difference of the score from a baseline's, layer by layer."
    citation = "Shrikumar, Greenside, Kundaje 2017, arXiv:1704.02685"
    assumptions: tuple[str, ...] = (
        "The baseline means that nothing is there.",
        "Layers that join two activations by a product pass their plain gradient: see the completeness gap.",
    )
    signed = True
    shared_map = False
    needs_gradients = True

    def defaults(self, model: Model | None) -> method_pb2.DeepLift:
        """Zero baseline, Captum's rule; the complete rule where the model's batch is fixed at 1."""
        one_at_a_time = model is not None and not model.batched
        rule = method_pb2.MAX_POOL_RULE_COMPLETE if one_at_a_time else method_pb2.MAX_POOL_RULE_CAPTUM
        return method_pb2.DeepLift(baseline=zero_baseline(), max_pool_rule=rule)

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """RULE_NEEDS_BATCH: Captum's rule on a model whose batch is fixed at 1."""
        rule = checked_cast(params, method_pb2.DeepLift).max_pool_rule
        if model.batched or rule != method_pb2.MAX_POOL_RULE_CAPTUM:
            return ()
        message = "Captum's rule takes case and baseline in one batch, and this model's batch is fixed at 1; use COMPLETE"
        return [Violation("max_pool_rule", "RULE_NEEDS_BATCH", message)]

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It needs the twin; operators without a rule limit it."""
        missing = [
            Remark("DEEP_LIFT_RULE_MISSING", f"{operator}: has no rule and passes its gradient; see the gap", fatal=False)
            for operator in traits.deep_lift_rule_missing
        ]
        return [*twin_remarks(traits), *missing]

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """One backward pass."""
        return 1

    def attribute(
        self, setting: Setting, twin: Differentiable, *, advanced: Callable[[int], None], cancelled: Cancelled
    ) -> Estimate:
        """As GradientMethod.attribute: one map for each modality, (*spatial)."""
        ask(cancelled)
        params = checked_cast(setting.params, method_pb2.DeepLift)
        free_forward(setting)
        scored, case = twin.scored(setting.score), twin.tensors(setting.case.volumes)
        baseline = twin.tensors(baseline_volumes(params.baseline, setting.case, seed=setting.seed, key=setting.key))
        by_rule = _complete if params.max_pool_rule == method_pb2.MAX_POOL_RULE_COMPLETE else _captum
        attributions, case_score, baseline_score = by_rule(scored, case, baseline)
        advanced(1)
        maps = as_maps(attributions)
        difference = case_score - baseline_score
        gap = difference - float(sum(values.sum() for values in maps))
        notable = abs(gap) > NOTABLE_GAP * abs(difference)
        caution = "contributions do not sum to the difference of the scores; see the completeness gap"
        return Estimate(
            maps=maps,
            completeness_gap=gap,
            baseline_score=baseline_score,
            passes=1,
            cautions=(("COMPLETENESS_GAP", caution),) if notable else (),
        )


def _complete(scored: torch.nn.Module, case: Sequence[torch.Tensor], baseline: Sequence[torch.Tensor]) -> _Attributions:
    from voxplain_server.engines.rescale_rule import multipliers

    slopes, case_score, baseline_score = multipliers(scored, case, baseline)
    attributions = [slope * (volume - absent) for slope, volume, absent in zip(slopes, case, baseline, strict=True)]
    return tuple(attributions), case_score, baseline_score


def _captum(scored: torch.nn.Module, case: Sequence[torch.Tensor], baseline: Sequence[torch.Tensor]) -> _Attributions:
    from voxplain_server.engines.captum_rule import captum_attributions

    with quiet_captum():
        return captum_attributions(scored, case, baseline)


METHOD: GradientMethod = DeepLift()
