"""Guided Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from voxplain.errors import UnsupportedByModel
from voxplain.v1 import method_pb2

from voxplain_server.engines.batched_scores import ask
from voxplain_server.engines.engine import Cancelled, Differentiable
from voxplain_server.engines.relu_rule import ReluRule
from voxplain_server.methods.checked_cast import checked_cast
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.input_gradients import shared_input_gradients
from voxplain_server.methods.layer_activation import LayerActivation, shared_layer_activations, slice_axis_of, upsampled
from voxplain_server.methods.method import GradientMethod, Remark, Setting, Violation
from voxplain_server.methods.twin_remarks import layer_remarks, relu_remarks, twin_remarks
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits


class GuidedGradCam:
    """phi = guided backpropagation x relu(Grad-CAM), voxel by voxel.

    Equal to Captum's GuidedGradCam in its default setting: Grad-CAM is upsampled by the nearest neighbour, not linearly as
    the grad-cam method does. Models that take slices apart get a Grad-CAM map for each slice.
    """

    name = "guided-grad-cam"
    summary = "Guided backpropagation, weighted by where Grad-CAM sees evidence."
    citation = "Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra 2017, arXiv:1610.02391"
    assumptions: tuple[str, ...] = (
        "Those of guided-backprop and of grad-cam.",
        "Negative evidence is cut away by Grad-CAM's ReLU.",
    )
    signed = True
    shared_map = False
    needs_gradients = True

    def defaults(self, model: Model | None) -> method_pb2.GuidedGradCam:
        """No layers: the model's default layers are read, and told in the result."""
        return method_pb2.GuidedGradCam()

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """Whether a layer exists only the graph can tell: see `remarks`."""
        return ()

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It needs the twin, a ReLU to act on, and a layer with spatial axes."""
        layers = checked_cast(params, method_pb2.GuidedGradCam).layers
        return [*twin_remarks(traits), *relu_remarks(traits), *layer_remarks(layers, traits)]

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """Two backward passes."""
        return 2

    def attribute(
        self, setting: Setting, twin: Differentiable, *, advanced: Callable[[int], None], cancelled: Cancelled
    ) -> Estimate:
        """As GradientMethod.attribute: one map for each modality, (*spatial).

        Raises:
            voxplain.errors.UnsupportedByModel: the layers do not fit the model, or leave a modality out.
        """
        ask(cancelled)
        params = checked_cast(setting.params, method_pb2.GuidedGradCam)
        activations, cam_made_now = shared_layer_activations(setting, twin, params.layers)
        by_modality = {modality: activation for activation in activations for modality in activation.modalities}
        if len(by_modality) < len(setting.case.volumes):
            raise UnsupportedByModel(
                "LAYERS_MISS_A_BRANCH", "no layer reads one of the modalities; name one layer for each branch", field="layers"
            )
        advanced(1)
        ask(cancelled)
        guided, guided_made_now = shared_input_gradients(setting, twin, ReluRule.GUIDED)
        advanced(2)
        passes = int(cam_made_now) + int(guided_made_now)
        return Estimate(
            maps=tuple(
                gradient.astype(np.float64) * _nearest(by_modality[modality], setting, modality)
                for modality, gradient in enumerate(guided)
            ),
            passes=passes,
            saved=2 - passes,
            layers=tuple(activation.layer for activation in activations),
        )


def _nearest(activation: LayerActivation, setting: Setting, modality: int) -> npt.NDArray[np.float64]:
    values = upsampled(
        activation.rectified(),
        setting.case.volumes[modality].shape,
        slice_axis=slice_axis_of(setting, modality),
        mode="nearest",
    )
    return cast("npt.NDArray[np.float64]", values.double().cpu().numpy())


METHOD: GradientMethod = GuidedGradCam()
