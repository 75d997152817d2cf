"""Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf.message import Message
from voxplain.v1 import method_pb2

from voxplain_server.engines.batched_scores import ask
from voxplain_server.engines.engine import Cancelled, Differentiable
from voxplain_server.methods.checked_cast import checked_cast
from voxplain_server.methods.estimate import Estimate, SharedMap
from voxplain_server.methods.layer_activation import LayerActivation, shared_layer_activations, slice_axis_of, upsampled
from voxplain_server.methods.method import GradientMethod, Remark, Setting, Violation
from voxplain_server.methods.twin_remarks import layer_remarks, twin_remarks
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits


class GradCam:
    """phi = relu(sum_c w_c A_c), w_c the mean over space of df/dA_c; A_c channel c of a layer.

    Equal to Captum's LayerGradCam, then upsampled linearly to the modality's grid by its LayerAttribution.interpolate in mode
    linear, bilinear or trilinear (align_corners=False). Models that take slices apart get weights and a map for each slice.
    """

    name = "grad-cam"
    summary = "Where the last convolution sees what raises the score: one coarse map shared by the modalities of an input."
    citation = "Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra 2017, arXiv:1610.02391"
    assumptions: tuple[str, ...] = (
        "Voxels of the layer lie where voxels of the volume lie.",
        "A channel counts alike everywhere: its weight is its mean gradient.",
    )
    signed = False
    shared_map = True
    needs_gradients = True

    def defaults(self, model: Model | None) -> method_pb2.GradCam:
        """ReLU as in the paper; no layers: the model's default layers are read, and told in the result."""
        return method_pb2.GradCam(relu=True)

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """Whether a layer exists only the graph can tell: see `remarks`."""
        return ()

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It needs the twin, and a layer with spatial axes."""
        return [*twin_remarks(traits), *layer_remarks(checked_cast(params, method_pb2.GradCam).layers, traits)]

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """One backward pass."""
        return 1

    def attribute(
        self, setting: Setting, twin: Differentiable, *, advanced: Callable[[int], None], cancelled: Cancelled
    ) -> Estimate:
        """As GradientMethod.attribute: one shared map for each layer, two where its modalities differ in shape.

        Raises:
            voxplain.errors.UnsupportedByModel: the layers do not fit the model.
        """
        ask(cancelled)
        params = checked_cast(setting.params, method_pb2.GradCam)
        activations, made_now = shared_layer_activations(setting, twin, params.layers)
        advanced(1)
        return Estimate(
            shared=tuple(
                shared for activation in activations for shared in _shared_maps(activation, setting, relu=params.relu)
            ),
            passes=int(made_now),
            saved=int(not made_now),
            signed=not params.relu,
            layers=tuple(activation.layer for activation in activations),
        )


def _shared_maps(activation: LayerActivation, setting: Setting, *, relu: bool) -> list[SharedMap]:
    by_grid: dict[tuple[tuple[int, ...], int | None], list[int]] = {}
    for modality in activation.modalities:
        grid = (setting.case.volumes[modality].shape, slice_axis_of(setting, modality))
        by_grid.setdefault(grid, []).append(modality)
    rectified = activation.rectified() if relu else activation
    return [
        SharedMap(
            modalities=tuple(modalities),
            values=upsampled(rectified, shape, slice_axis=slice_axis, mode="linear").double().cpu().contiguous().numpy(),
        )
        for (shape, slice_axis), modalities in by_grid.items()
    ]


METHOD: GradientMethod = GradCam()
