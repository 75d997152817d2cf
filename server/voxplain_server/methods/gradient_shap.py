"""GradientSHAP."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from google.protobuf.message import Message
from voxplain.v1 import method_pb2

from voxplain_server.engines.engine import Cancelled, Differentiable
from voxplain_server.methods.baselines import baseline_volumes
from voxplain_server.methods.bounds import outside
from voxplain_server.methods.checked_cast import checked_cast
from voxplain_server.methods.draws import philox
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.input_gradients import baseline_score, case_score, free_forward
from voxplain_server.methods.method import GradientMethod, Remark, Setting, Violation
from voxplain_server.methods.parameter_defaults import zero_baseline
from voxplain_server.methods.running_mean import RunningMean
from voxplain_server.methods.smooth_grad import sample_noise
from voxplain_server.methods.twin_remarks import twin_remarks
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits

DEFAULT_SAMPLES = 5
DEFAULT_NOISE_STD = 0.0
MAX_SAMPLES = 10_000


class GradientShap:
    """phi = mean over k of (x_k - b) df/dx at b + a_k (x_k - b), x_k = x + noise_std e_k, a_k ~ U(0, 1), e_k ~ N(0, 1).

    Captum's GradientShap, one sample at a time. a_k is the first draw of philox(seed, key, "coefficient", k), e_k that of
    SmoothGrad. Completeness holds in expectation only (and without noise): the gap is the mean over the samples of
    f(x) - f(b) - sum(phi_k), with its standard error.
    """

    name = "gradient-shap"
    summary = "Gradients at random points between baseline and case, times their difference."
    citation = "Lundberg, Lee 2017, arXiv:1705.07874; Erion, Janizek, Sturmfels, Lundberg, Lee 2021, arXiv:1906.10670"
    assumptions: tuple[str, ...] = (
        "The baseline means that nothing is there.",
        "Points between baseline and case are cases that the model can judge.",
        "Features are independent and the score is linear between baseline and case, where it is read as a Shapley value.",
    )
    signed = True
    shared_map = False
    needs_gradients = True

    def defaults(self, model: Model | None) -> method_pb2.GradientShap:
        """Zero baseline, 5 samples, no noise."""
        return method_pb2.GradientShap(baseline=zero_baseline(), samples=DEFAULT_SAMPLES, noise_std=DEFAULT_NOISE_STD)

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """Numbers out of range."""
        return [*outside(params, "samples", 1, MAX_SAMPLES), *outside(params, "noise_std", 0.0, float("inf"))]

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It needs the twin."""
        return twin_remarks(traits)

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """One backward pass for each sample."""
        return checked_cast(params, method_pb2.GradientShap).samples

    def attribute(
        self, setting: Setting, twin: Differentiable, *, advanced: Callable[[int], None], cancelled: Cancelled
    ) -> Estimate:
        """As GradientMethod.attribute: one map and one standard error (from two samples on) for each modality, (*spatial).

        Cancelled in between, it gives the mean over the samples done.
        """
        params = checked_cast(setting.params, method_pb2.GradientShap)
        free_forward(setting)
        case = twin.tensors(setting.case.volumes)
        baseline = twin.tensors(baseline_volumes(params.baseline, setting.case, seed=setting.seed, key=setting.key))
        absent_score = baseline_score(setting, twin, params.baseline, baseline)
        whole = case_score(setting, twin) - absent_score
        mean, gaps = RunningMean(), []
        for sample in range(params.samples):
            if mean.stops(cancelled):
                break
            coefficient = philox(setting.seed, setting.key, "coefficient", sample).random()
            differences = [volume - absent for volume, absent in zip(case, baseline, strict=True)]
            if params.noise_std > 0.0:
                noise = twin.tensors(sample_noise(setting, sample))
                differences = [each + params.noise_std * drawn for each, drawn in zip(differences, noise, strict=True)]
            point = [absent + coefficient * each for absent, each in zip(baseline, differences, strict=True)]
            gradients = twin.forward_pass(setting.score, point).gradients()
            attributions = [each * gradient for each, gradient in zip(differences, gradients, strict=True)]
            gaps.append(whole - sum(float(each.double().sum()) for each in attributions))
            mean.add(attributions)
            advanced(sample + 1)
        return Estimate(
            maps=mean.means(),
            standard_error_maps=mean.standard_errors(),
            completeness_gap=float(np.mean(gaps)),
            completeness_gap_standard_error=float(np.std(gaps, ddof=1) / math.sqrt(len(gaps))) if len(gaps) > 1 else None,
            standard_error=mean.relative_standard_error(),
            baseline_score=absent_score,
            passes=mean.samples,
        )


METHOD: GradientMethod = GradientShap()
