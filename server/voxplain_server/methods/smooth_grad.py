"""SmoothGrad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from voxplain.v1 import method_pb2

from voxplain_server.engines.engine import Cancelled, Differentiable
from voxplain_server.methods.bounds import outside
from voxplain_server.methods.checked_cast import checked_cast
from voxplain_server.methods.draws import philox
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.input_gradients import free_forward
from voxplain_server.methods.method import GradientMethod, Remark, Setting, Violation
from voxplain_server.methods.running_mean import RunningMean
from voxplain_server.methods.twin_remarks import twin_remarks
from voxplain_server.models.case import Volumes
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits

DEFAULT_SAMPLES = 10
DEFAULT_NOISE_STD = 1.0
MAX_SAMPLES = 10_000


class SmoothGrad:
    """phi = mean over k of |df/dx at x + e_k|, e_k ~ N(0, noise_std^2) in every voxel; without the absolute if so asked.

    Captum's NoiseTunnel over Saliency, one sample at a time. The noise of sample k and modality m is
    philox(seed, key, "noise", k, m), in normalised units and not scaled to the volume.
    """

    name = "smooth-grad"
    summary = "Mean gradient over noisy copies of the case."
    citation = "Smilkov, Thorat, Kim, Viegas, Wattenberg 2017, arXiv:1706.03825"
    assumptions: tuple[str, ...] = ("Noisy copies are cases that the model can judge.",)
    signed = False
    shared_map = False
    needs_gradients = True

    def defaults(self, model: Model | None) -> method_pb2.SmoothGrad:
        """10 samples, standard deviation 1, absolute gradients."""
        return method_pb2.SmoothGrad(samples=DEFAULT_SAMPLES, noise_std=DEFAULT_NOISE_STD, absolute=True)

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """Numbers out of range."""
        return [*outside(params, "samples", 1, MAX_SAMPLES), *outside(params, "noise_std", 0.0, float("inf"))]

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It needs the twin."""
        return twin_remarks(traits)

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """One backward pass for each sample."""
        return checked_cast(params, method_pb2.SmoothGrad).samples

    def attribute(
        self, setting: Setting, twin: Differentiable, *, advanced: Callable[[int], None], cancelled: Cancelled
    ) -> Estimate:
        """As GradientMethod.attribute: one map and one standard error (from two samples on) for each modality, (*spatial).

        Cancelled in between, it gives the mean over the samples done.
        """
        params = checked_cast(setting.params, method_pb2.SmoothGrad)
        free_forward(setting)
        case = twin.tensors(setting.case.volumes)
        mean = RunningMean()
        for sample in range(params.samples):
            if mean.stops(cancelled):
                break
            noise = twin.tensors(sample_noise(setting, sample))
            point = [volume + params.noise_std * each for volume, each in zip(case, noise, strict=True)]
            gradients = twin.forward_pass(setting.score, point).gradients()
            mean.add([gradient.abs() for gradient in gradients] if params.absolute else gradients)
            advanced(sample + 1)
        return Estimate(
            maps=mean.means(),
            standard_error_maps=mean.standard_errors(),
            standard_error=mean.relative_standard_error(),
            passes=mean.samples,
            signed=not params.absolute,
        )


def sample_noise(setting: Setting, sample: int) -> Volumes:
    """Standard normal noise of one sample, (*spatial) float32 for each modality; each has a stream of its own, so they are
    drawn side by side."""
    import torch

    def draw(modality: int) -> npt.NDArray[np.float32]:
        shape = setting.case.volumes[modality].shape
        return philox(setting.seed, setting.key, "noise", sample, modality).standard_normal(shape, dtype=np.float32)

    modalities = range(len(setting.case.volumes))
    with ThreadPoolExecutor(max(min(torch.get_num_threads(), len(modalities)), 1)) as threads:
        return tuple(threads.map(draw, modalities))


METHOD: GradientMethod = SmoothGrad()
