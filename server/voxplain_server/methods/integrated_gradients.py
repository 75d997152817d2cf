"""Integrated gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from google.protobuf.message import Message
from voxplain.v1 import method_pb2

from voxplain_server.engines.batched_scores import ask
from voxplain_server.engines.engine import Cancelled, Differentiable
from voxplain_server.methods.baselines import baseline_volumes
from voxplain_server.methods.bounds import outside
from voxplain_server.methods.checked_cast import checked_cast
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.input_gradients import as_maps, baseline_score, case_score, free_forward
from voxplain_server.methods.method import GradientMethod, Remark, Setting, Violation
from voxplain_server.methods.parameter_defaults import zero_baseline
from voxplain_server.methods.twin_remarks import twin_remarks
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits

DEFAULT_STEPS = 50
MAX_STEPS = 1_000
"""The nodes are eigenvalues of a matrix of this size: ten thousand would take minutes that nobody can cancel."""


class IntegratedGradients:
    """phi = (x - b) sum_k w_k df/dx at b + a_k (x - b); a_k, w_k nodes and weights of Gauss-Legendre on (0, 1).

    Captum's IntegratedGradients, one node at a time. Its weights are rounded to float32; so are these, so that both agree
    beyond that. Where all volumes pass through convolutions first, the weighted gradients are summed behind these and brought
    to the volumes once, which is exact because convolutions are linear. The completeness gap is f(x) - f(b) - sum(phi), the
    error of the quadrature.
    """

    name = "integrated-gradients"
    summary = "Gradients along the straight line from baseline to case, times their difference."
    citation = "Sundararajan, Taly, Yan 2017, arXiv:1703.01365"
    assumptions: tuple[str, ...] = (
        "The baseline means that nothing is there.",
        "Faded copies of the case are cases that the model can judge.",
    )
    signed = True
    shared_map = False
    needs_gradients = True

    def defaults(self, model: Model | None) -> method_pb2.IntegratedGradients:
        """Zero baseline, 50 nodes."""
        return method_pb2.IntegratedGradients(baseline=zero_baseline(), steps=DEFAULT_STEPS)

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """Numbers out of range."""
        return [*outside(params, "steps", 1, MAX_STEPS)]

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It needs the twin."""
        return twin_remarks(traits)

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """One backward pass for each node."""
        return checked_cast(params, method_pb2.IntegratedGradients).steps

    def attribute(
        self, setting: Setting, twin: Differentiable, *, advanced: Callable[[int], None], cancelled: Cancelled
    ) -> Estimate:
        """As GradientMethod.attribute: one map for each modality, (*spatial)."""
        import torch

        params = checked_cast(setting.params, method_pb2.IntegratedGradients)
        free_forward(setting)
        case, stems = twin.tensors(setting.case.volumes), twin.stems()
        baseline = twin.tensors(baseline_volumes(params.baseline, setting.case, seed=setting.seed, key=setting.key))
        differences = [volume - absent for volume, absent in zip(case, baseline, strict=True)]
        sums: list[torch.Tensor] = []
        for step, (node, weight) in enumerate(_nodes(params.steps)):
            ask(cancelled)
            point = [absent + node * each for absent, each in zip(baseline, differences, strict=True)]
            passed = twin.forward_pass(setting.score, point, layers=stems, from_layers=bool(stems))
            gradients = passed.layer_gradients() if stems else passed.gradients()
            del passed
            if not sums:
                sums = [torch.zeros_like(gradient) for gradient in gradients]
            for total, gradient in zip(sums, gradients, strict=True):
                total.add_(gradient, alpha=weight)
            advanced(step + 1)
        ask(cancelled)
        integrals = twin.through_stems(sums, case) if stems else sums
        maps = as_maps([integral.double().mul_(each) for integral, each in zip(integrals, differences, strict=True)])
        absent_score = baseline_score(setting, twin, params.baseline, baseline)
        return Estimate(
            maps=maps,
            completeness_gap=case_score(setting, twin) - absent_score - float(sum(values.sum() for values in maps)),
            baseline_score=absent_score,
            passes=params.steps,
        )


def _nodes(steps: int) -> list[tuple[float, float]]:
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    rounded = (0.5 * weights).astype(np.float32)
    return list(zip((0.5 * (1.0 + nodes)).tolist(), rounded.astype(np.float64).tolist(), strict=True))


METHOD: GradientMethod = IntegratedGradients()
