"""Builders of operators that become a layer of torch: normalisations, linear layers, activations with weights."""

import math

import torch
from torch import Tensor, fx, nn

from voxplain_server.graph import tensor_functions
from voxplain_server.graph.site import Site
from voxplain_server.graph.windowed_operators import frozen

_BATCH_NORMS: dict[int, type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]] = {
    0: nn.BatchNorm1d,
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
_INSTANCE_NORMS: dict[int, type[nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d]] = {
    1: nn.InstanceNorm1d,
    2: nn.InstanceNorm2d,
    3: nn.InstanceNorm3d,
}
_DEFAULT_EPSILON = 1e-5


def build_batch_normalization(site: Site) -> fx.Node:
    """BatchNormalization with its stored statistics."""
    if site.attribute("training_mode", 0) or not site.attribute("spatial", 1):
        raise site.unsupported("training mode")
    rank = site.rank() - 2
    if rank not in _BATCH_NORMS:
        raise site.unsupported(f"{rank} spatial axes")
    scale, shift, mean, variance = (site.weight(index) for index in range(1, 5))
    module = _BATCH_NORMS[rank](scale.numel(), eps=site.attribute("epsilon", _DEFAULT_EPSILON), device="meta")
    module.weight, module.bias = frozen(scale), frozen(shift)
    module.running_mean, module.running_var = mean, variance
    module.num_batches_tracked = torch.tensor(0)
    return site.module(module)


def build_instance_normalization(site: Site) -> fx.Node:
    """InstanceNormalization."""
    rank = site.rank() - 2
    if rank not in _INSTANCE_NORMS:
        raise site.unsupported(f"{rank} spatial axes")
    scale, shift = site.weight(1), site.weight(2)
    epsilon = site.attribute("epsilon", _DEFAULT_EPSILON)
    module = _INSTANCE_NORMS[rank](scale.numel(), eps=epsilon, affine=True, device="meta")
    module.weight, module.bias = frozen(scale), frozen(shift)
    return site.module(module)


def build_layer_normalization(site: Site) -> fx.Node:
    """LayerNormalization over the last axes."""
    if site.uses_output(1) or site.uses_output(2):
        raise site.unsupported("statistics")
    rank, scale = site.rank(), site.weight(1)
    axis = int(site.attribute("axis", -1)) % rank
    shape = (site.graph.shape(site.node.inputs[0]) or ())[axis:]
    # The scale may be broadcast; only where it is not does it tell a size that shape inference does not know.
    scales = (1,) * (len(shape) - scale.ndim) + tuple(scale.shape)
    normalised = [size if isinstance(size, int) else known for size, known in zip(shape, scales, strict=True)]
    if any(known == 1 and not isinstance(size, int) for size, known in zip(shape, scales, strict=True)):
        raise site.unsupported("normalised axes of unknown size")
    module = nn.LayerNorm(normalised, eps=site.attribute("epsilon", _DEFAULT_EPSILON), bias=site.has(2), device="meta")
    module.weight = frozen(scale.expand(normalised))
    if site.has(2):
        module.bias = frozen(site.weight(2).expand(normalised))
    return site.module(module)


def build_group_normalization(site: Site) -> fx.Node:
    """GroupNormalization; before operator set 21 scale and bias are per group, not per channel."""
    shape = site.graph.shape(site.node.inputs[0])
    channels = shape[1] if shape is not None and len(shape) > 1 else None
    groups = int(site.attribute("num_groups"))
    if not isinstance(channels, int):
        raise site.unsupported("unknown channels")
    scale, shift = site.weight(1), site.weight(2)
    if scale.numel() != channels:
        scale, shift = (tensor.repeat_interleave(channels // groups) for tensor in (scale, shift))
    module = nn.GroupNorm(groups, channels, eps=site.attribute("epsilon", _DEFAULT_EPSILON), device="meta")
    module.weight, module.bias = frozen(scale), frozen(shift)
    return site.module(module)


def build_parametric_relu(site: Site) -> fx.Node:
    """PRelu: a module where the slope is one number or one per channel, else a function."""
    rank = site.rank()
    slope = site.constant(1)
    if slope is not None:
        aligned = (1,) * (rank - slope.ndim) + slope.shape
        if slope.size == 1 or math.prod(aligned) == aligned[1]:
            module = nn.PReLU(slope.size, device="meta")
            module.weight = frozen(site.weight(1).reshape(-1))
            return site.module(module)
    return site.call(parametric_relu, site.value(0), site.value(1))


def build_general_product(site: Site) -> fx.Node:
    """Gemm: a linear layer where weight and bias are constants, else a function."""
    alpha, beta = float(site.attribute("alpha", 1.0)), float(site.attribute("beta", 1.0))
    transposed = bool(site.attribute("transA", 0)), bool(site.attribute("transB", 0))
    plain = alpha == 1.0 and beta == 1.0 and not transposed[0] and site.constant(1) is not None
    if plain and (not site.has(2) or site.constant(2) is not None):
        weight = site.weight(1) if transposed[1] else site.weight(1).T
        bias = site.weight(2) if site.has(2) else None
        if bias is None or bias.numel() in (1, weight.shape[0]):
            return site.module(_linear(weight, None if bias is None else bias.reshape(-1).expand(weight.shape[0])))
    added = site.value(2) if site.has(2) else None
    return site.call(tensor_functions.general_product, site.value(0), site.value(1), added, alpha, beta, transposed)


def build_matrix_product(site: Site) -> fx.Node:
    """MatMul: a linear layer where the right operand is a constant matrix, else a function."""
    right = site.constant(1)
    if right is not None and right.ndim == 2 and site.constant(0) is None:
        return site.module(_linear(site.weight(1).T, None))
    return site.call(tensor_functions.matrix_product, site.value(0), site.value(1))


def build_softmax(site: Site) -> fx.Node:
    """Softmax and LogSoftmax; before operator set 13 over all axes from `axis` on, taken together."""
    kind: type[nn.Softmax] | type[nn.LogSoftmax] = nn.Softmax if site.node.op == "Softmax" else nn.LogSoftmax
    if site.graph.opset >= 13:
        return site.module(kind(dim=int(site.attribute("axis", -1))))
    rank = site.rank()
    axis = int(site.attribute("axis", 1)) % rank
    if axis != rank - 1:
        raise site.unsupported("several axes together")
    return site.module(kind(dim=axis))


def parametric_relu(value: Tensor, slope: Tensor) -> Tensor:
    """PRelu with a slope of any shape that broadcasts."""
    return torch.where(value < 0, slope * value, value)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    module.weight = frozen(weight.contiguous())
    if bias is not None:
        module.bias = frozen(bias)
    return module
