"""What a layer says about where the score comes from: the core of Grad-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from voxplain.errors import UnsupportedByModel

from voxplain_server.engines.engine import Differentiable
from voxplain_server.methods.input_gradients import shared_forward
from voxplain_server.methods.method import Setting

if TYPE_CHECKING:
    import torch

_SPATIAL_FROM = 2
"""Axes of a layer's output before its spatial ones: rows and channels."""
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, slots=True, eq=False)
class LayerActivation:
    """Channels of a layer, summed with the weights of Grad-CAM.

    Attributes:
        layer: ONNX value name.
        modalities: indices of the modalities that the layer depends on.
        values: (rows, *layer's spatial); rows are slices where the model takes slices apart, else one.
    """

    layer: str
    modalities: tuple[int, ...]
    values: torch.Tensor

    def rectified(self) -> LayerActivation:
        """With negative values cut to zero."""
        return replace(self, values=self.values.clamp(min=0))


def shared_layer_activations(
    setting: Setting, twin: Differentiable, layers: Sequence[str]
) -> tuple[tuple[LayerActivation, ...], bool]:
    """Sum each layer's channels with their mean gradients: sum_c (mean_s dscore/dA_c,s) A_c, before any ReLU.

    All layers come from one forward pass (the model's default layers from that of the other single-pass methods), of which only
    what follows them is differentiated. The mean runs over the layer's
    spatial axes alone, so a model that takes slices apart has weights for each slice. The methods of a call share the pass.

    Args:
        setting: the case and the score.
        twin: the differentiable engine.
        layers: ONNX value names; none: the model's default layers.

    Returns:
        One for each layer, in that order, and whether a pass was done for it.

    Raises:
        voxplain.errors.UnsupportedByModel: two layers explain one modality (LAYERS_OVERLAP), a layer has no spatial axes
            (LAYER_NOT_SPATIAL), or the twin has no such layer (UNKNOWN_LAYER).
    """
    names = tuple(layers) or setting.traits.default_cam_layers
    found, made_now = setting.passes.remember(("layer-activations", names), lambda: _activations(setting, twin, names))
    return found, made_now


def upsampled(
    activation: LayerActivation, shape: tuple[int, ...], *, slice_axis: int | None, mode: Literal["linear", "nearest"]
) -> torch.Tensor:
    """Bring a layer's map to a modality's grid as Captum's LayerAttribution.interpolate does (align_corners=False).

    Args:
        activation: `values` may have passed a ReLU.
        shape: the modality's voxels.
        slice_axis: axis of the volume that the model takes apart into slices; None: none. Slices are never blended where
            the layer still has one row for each.
        mode: linear in as many axes as the layer has, or nearest.

    Returns:
        (*spatial).

    Raises:
        voxplain.errors.UnsupportedByModel: the layer's axes cannot be told (LAYER_NOT_SPATIAL).
    """
    values = activation.values
    rows, axes = values.shape[0], values.ndim - 1
    if slice_axis is None:
        if (rows, axes) != (1, len(shape)):
            raise _not_spatial()
        return _interpolated(values, shape, mode)[0]
    slices = shape[slice_axis]
    plane = tuple(size for axis, size in enumerate(shape) if axis != slice_axis)
    if rows == 1 and axes == len(shape):
        stack = _interpolated(values, (slices, *plane), mode)[0]
    elif axes == len(plane) and rows in (1, slices):
        stack = _interpolated(values, plane, mode).expand(slices, *plane)
    else:
        raise _not_spatial()
    return stack.movedim(0, slice_axis)


def slice_axis_of(setting: Setting, modality: int) -> int | None:
    """The axis of a modality's volume that the model takes apart into slices."""
    model = setting.case.model
    name = model.modality_names[modality]
    return next(spec.slice_axis for spec in model.inputs if name in spec.modalities)


def _activations(setting: Setting, twin: Differentiable, layers: tuple[str, ...]) -> tuple[LayerActivation, ...]:
    try:
        modules = [twin.layer(setting.score, layer) for layer in layers]
        branches = [twin.modalities_of(layer) for layer in layers]
    except KeyError as error:
        raise UnsupportedByModel("UNKNOWN_LAYER", "the model has no such layer; GetModel lists them", field="layers") from error
    if len({modality for branch in branches for modality in branch}) < sum(len(branch) for branch in branches):
        raise UnsupportedByModel(
            "LAYERS_OVERLAP", "two layers read the same modality; name one layer for each branch", field="layers"
        )
    if layers == setting.traits.default_cam_layers:
        passed = shared_forward(setting, twin)
    else:
        passed = twin.forward_pass(setting.score, twin.tensors(setting.case.volumes), layers=modules, from_layers=True)
    if any(output.ndim < _SPATIAL_FROM + 1 for output in passed.outputs):
        raise _not_spatial()
    outputs, gradients = passed.outputs, passed.layer_gradients()
    return tuple(
        LayerActivation(layer, branch, _weighted(output, gradient))
        for layer, branch, output, gradient in zip(layers, branches, outputs, gradients, strict=True)
    )


def _weighted(output: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    weights = gradient.mean(dim=tuple(range(_SPATIAL_FROM, gradient.ndim)), keepdim=True)
    return (weights * output).sum(dim=1)


def _interpolated(values: torch.Tensor, shape: tuple[int, ...], mode: Literal["linear", "nearest"]) -> torch.Tensor:
    from torch.nn import functional

    if mode == "nearest":
        return functional.interpolate(values[:, None], size=shape, mode="nearest")[:, 0]
    linear = _LINEAR[len(shape)]
    return functional.interpolate(values[:, None], size=shape, mode=linear, align_corners=False)[:, 0]


def _not_spatial() -> UnsupportedByModel:
    return UnsupportedByModel(
        "LAYER_NOT_SPATIAL", "a layer has not the spatial axes of its modality; name an earlier one", field="layers"
    )
