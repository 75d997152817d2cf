"""Why gradient methods do not work on a model."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain_server.methods.method import Remark
from voxplain_server.models.traits import ModelTraits


def twin_remarks(traits: ModelTraits) -> list[Remark]:
    """Why there is no twin that can be trusted: REMOTE_MODEL, UNSUPPORTED_OPERATOR or TWIN_PARITY; empty where there is one."""
    if traits.remote:
        message = "another server holds the model and answers with scores, not with gradients; use a perturbation method"
        return [Remark("REMOTE_MODEL", message, fatal=True)]
    if traits.unsupported_operators:
        names = ", ".join(traits.unsupported_operators)
        message = f"{names}: gradient methods cannot read this operator; export the model without it, or use another method"
        return [Remark("UNSUPPORTED_OPERATOR", message, fatal=True)]
    if traits.has_twin:
        return []
    figure = "not measured" if traits.twin_parity is None else f"{traits.twin_parity:.1e}"
    message = (
        f"{figure}: relative difference of the differentiable copy to ONNX Runtime, where at most {traits.PARITY_BOUND:.0e} is"
        " allowed; gradients might explain another model"
    )
    return [Remark("TWIN_PARITY", message, fatal=True)]


def relu_remarks(traits: ModelTraits) -> list[Remark]:
    """NO_RELU for methods that change how ReLU passes gradients."""
    if traits.has_relu or traits.unsupported_operators or traits.remote:
        return []
    message = "the model has no ReLU, on which alone this method acts; its map would be the plain gradient: use gradient"
    return [Remark("NO_RELU", message, fatal=True)]


def layer_remarks(layers: Sequence[str], traits: ModelTraits) -> list[Remark]:
    """NO_CONVOLUTION_LAYER or UNKNOWN_LAYER for methods that read a layer; `layers` are those that a client named."""
    if traits.unsupported_operators or traits.remote:
        return []
    if any(layer not in traits.cam_layers for layer in layers):
        return [Remark("UNKNOWN_LAYER", "a named layer is not one that Grad-CAM can read; GetModel lists them", fatal=True)]
    if layers or traits.default_cam_layers:
        return []
    message = "the model has no convolution whose output has spatial axes, which Grad-CAM reads; use another method"
    return [Remark("NO_CONVOLUTION_LAYER", message, fatal=True)]
