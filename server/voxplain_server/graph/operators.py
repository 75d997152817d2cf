"""The table of operators that the twin knows: one line each."""

import operator
from collections.abc import Callable
from typing import Any

import onnx
import torch
from torch import fx, nn

from voxplain_server.graph import layer_operators as layers
from voxplain_server.graph import tensor_functions as functions
from voxplain_server.graph import windowed_operators as windows
from voxplain_server.graph.site import Built, Site

Builder = Callable[[Site], Built]

_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def _elementwise(function: Callable[..., Any]) -> Builder:
    applied = functions.elementwise(function)
    return lambda site: site.call(applied, *site.values())


def _one(function: Callable[..., Any]) -> Builder:
    return lambda site: site.call(function, site.value(0))


def _clip(site: Site) -> fx.Node:
    low, high = site.attribute("min"), site.attribute("max")
    return site.call(functions.clip, site.value(0), _bound(site, 1, low), _bound(site, 2, high))


def _bound(site: Site, index: int, older: float | None) -> fx.Node | float | None:
    if not site.has(index):
        return older
    constant = site.constant(index)
    return site.value(index) if constant is None else float(constant.reshape(()))


def _cast(site: Site) -> fx.Node:
    source = onnx.helper.tensor_dtype_to_np_dtype(site.attribute("to"))
    if source.kind in "iub":
        return site.call(functions.cast, site.value(0), getattr(torch, source.name))
    if source.kind in "fV":
        return site.call(functions.cast, site.value(0), site.dtype)
    raise site.unsupported("to text or complex numbers")


def _cast_like(site: Site) -> fx.Node:
    return site.call(_to_type_of, site.value(0), site.value(1))


def _to_type_of(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return value.to(like.dtype)


def _constant_of_shape(site: Site) -> fx.Node:
    tensor = site.attribute("value")
    if tensor is None or tensor.dtype.kind == "f":
        fill, dtype = 0.0 if tensor is None else float(tensor.reshape(())), site.dtype
    else:
        fill, dtype = tensor.reshape(()).item(), getattr(torch, tensor.dtype.name)
    return site.call(functions.filled, site.integers(0), fill, dtype)


def _split(site: Site) -> Built:
    sizes, parts = site.integers(1, "split"), len(site.node.outputs)
    parts_node = site.call(functions.split, site.value(0), sizes, parts, int(site.attribute("axis", 0)))
    return tuple(site.call(operator.getitem, parts_node, index) for index in range(parts))


def _slice(site: Site) -> fx.Node:
    starts, ends = site.integers(1, "starts"), site.integers(2, "ends")
    return site.call(functions.cut, site.value(0), starts, ends, site.integers(3, "axes"), site.integers(4))


def _pad(site: Site) -> fx.Node:
    fill: Any = site.attribute("value", 0.0)
    if site.has(2):
        constant = site.constant(2)
        fill = site.value(2) if constant is None else float(constant.reshape(()))
    mode = site.attribute("mode", "constant")
    return site.call(functions.pad, site.value(0), site.integers(1, "pads"), site.integers(3), mode, fill)


def _reduce(site: Site) -> fx.Node:
    axes, keep = site.integers(1, "axes"), bool(site.attribute("keepdims", 1))
    whole = not site.attribute("noop_with_empty_axes", 0)
    return site.call(functions.reduce, site.value(0), axes, site.node.op, keep, whole)


def _reshape(site: Site) -> fx.Node:
    return site.call(functions.reshape, site.value(0), site.integers(1, "shape"), bool(site.attribute("allowzero", 0)))


def _shape(site: Site) -> fx.Node:
    return site.call(functions.shape_of, site.value(0), site.attribute("start", 0), site.attribute("end"))


def _einsum(site: Site) -> fx.Node:
    return site.call(functions.einsum, site.values(), site.attribute("equation"))


def _concat(site: Site) -> fx.Node:
    return site.call(functions.concatenate, site.values(), int(site.attribute("axis", 1)))


def _arg_max(site: Site) -> fx.Node:
    if site.attribute("select_last_index", 0):
        raise site.unsupported("select_last_index")
    return site.call(functions.argmax, site.value(0), int(site.attribute("axis", 0)), bool(site.attribute("keepdims", 1)))


def _mod(site: Site) -> Built:
    return _elementwise(torch.fmod if site.attribute("fmod", 0) else functions.modulo)(site)


def _scatter_parts(site: Site) -> fx.Node:
    if site.attribute("reduction", "none") != "none":
        raise site.unsupported("reduction")
    return site.call(functions.scatter_parts, *site.values())


def _gather_parts(site: Site) -> fx.Node:
    if site.attribute("batch_dims", 0):
        raise site.unsupported("batch_dims")
    return site.call(functions.gather_parts, *site.values())


def _depth_to_space(site: Site) -> fx.Node:
    return site.call(functions.depth_to_space, site.value(0), site.attribute("blocksize"), site.attribute("mode", "DCR"))


def _dropout(site: Site) -> fx.Node:
    if site.uses_output(1) or (site.has(2) and site.constant(2) is None) or bool(site.constant(2)):
        raise site.unsupported("training mode")
    return site.module(nn.Identity())


OPERATORS: dict[str, Builder] = {
    # Non-linear functions, each a module of its own so that hooks find it.
    "Relu": lambda site: site.module(nn.ReLU()),
    "LeakyRelu": lambda site: site.module(nn.LeakyReLU(site.attribute("alpha", 0.01))),
    "PRelu": layers.build_parametric_relu,
    "Elu": lambda site: site.module(nn.ELU(site.attribute("alpha", 1.0))),
    "Celu": lambda site: site.module(nn.CELU(site.attribute("alpha", 1.0))),
    "Sigmoid": lambda site: site.module(nn.Sigmoid()),
    "Tanh": lambda site: site.module(nn.Tanh()),
    "Gelu": lambda site: site.module(nn.GELU(site.attribute("approximate", "none"))),
    "Softplus": lambda site: site.module(nn.Softplus()),
    "Softsign": lambda site: site.module(nn.Softsign()),
    "HardSwish": lambda site: site.module(nn.Hardswish()),
    "Mish": lambda site: site.module(nn.Mish()),
    "Softmax": layers.build_softmax,
    "LogSoftmax": layers.build_softmax,
    # Windows.
    "Conv": windows.build_convolution,
    "ConvTranspose": windows.build_transposed_convolution,
    "MaxPool": windows.build_max_pool,
    "AveragePool": windows.build_average_pool,
    "GlobalAveragePool": windows.build_global_average_pool,
    "GlobalMaxPool": windows.build_global_max_pool,
    "Resize": windows.build_resize,
    "Upsample": windows.build_resize,
    # Layers with weights.
    "BatchNormalization": layers.build_batch_normalization,
    "InstanceNormalization": layers.build_instance_normalization,
    "LayerNormalization": layers.build_layer_normalization,
    "GroupNormalization": layers.build_group_normalization,
    "Gemm": layers.build_general_product,
    "MatMul": layers.build_matrix_product,
    "Einsum": _einsum,
    # Elementwise arithmetic.
    "Add": _elementwise(torch.add),
    "Sub": _elementwise(torch.sub),
    "Mul": _elementwise(torch.mul),
    "Div": _elementwise(functions.divide),
    "Mod": _mod,
    "Pow": _elementwise(functions.power),
    "Max": _elementwise(torch.maximum),
    "Min": _elementwise(torch.minimum),
    "Sum": _elementwise(torch.add),
    "Mean": lambda site: site.call(functions.mean_of, *site.values()),
    "Abs": _one(torch.abs),
    "Neg": _one(torch.neg),
    "Sign": _one(torch.sign),
    "Reciprocal": _one(torch.reciprocal),
    "Sqrt": _one(torch.sqrt),
    "Exp": _one(torch.exp),
    "Log": _one(torch.log),
    "Erf": _one(torch.erf),
    "Sin": _one(torch.sin),
    "Cos": _one(torch.cos),
    "Floor": _one(torch.floor),
    "Ceil": _one(torch.ceil),
    "Round": _one(torch.round),
    "Clip": _clip,
    # Comparing and choosing.
    "Equal": _elementwise(torch.eq),
    "Greater": _elementwise(torch.gt),
    "GreaterOrEqual": _elementwise(torch.ge),
    "Less": _elementwise(torch.lt),
    "LessOrEqual": _elementwise(torch.le),
    "And": _elementwise(torch.logical_and),
    "Or": _elementwise(torch.logical_or),
    "Xor": _elementwise(torch.logical_xor),
    "Not": _one(torch.logical_not),
    "IsNaN": _one(torch.isnan),
    "Where": lambda site: site.call(functions.select, *site.values()),
    "ArgMax": _arg_max,
    # Reductions.
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "ReduceMax": _reduce,
    "ReduceMin": _reduce,
    "ReduceProd": _reduce,
    "ReduceL1": _reduce,
    "ReduceL2": _reduce,
    "ReduceSumSquare": _reduce,
    "ReduceLogSum": _reduce,
    "ReduceLogSumExp": _reduce,
    # Moving elements.
    "Identity": lambda site: site.module(nn.Identity()),
    "Dropout": _dropout,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Shape": _shape,
    "Size": _one(functions.size_of),
    "Reshape": _reshape,
    "Flatten": lambda site: site.call(functions.flatten, site.value(0), int(site.attribute("axis", 1))),
    "Transpose": lambda site: site.call(functions.transpose, site.value(0), site.attribute("perm")),
    "Squeeze": lambda site: site.call(functions.squeeze, site.value(0), site.integers(1, "axes")),
    "Unsqueeze": lambda site: site.call(functions.unsqueeze, site.value(0), site.integers(1, "axes")),
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": lambda site: site.call(functions.gather, *site.values(), int(site.attribute("axis", 0))),
    "GatherElements": lambda site: site.call(functions.gather_elements, *site.values(), int(site.attribute("axis", 0))),
    "GatherND": _gather_parts,
    "ScatterND": _scatter_parts,
    "Expand": lambda site: site.call(functions.expand, site.value(0), site.integers(1)),
    "Tile": lambda site: site.call(functions.tile, site.value(0), site.integers(1)),
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "ConstantOfShape": _constant_of_shape,
    "Range": lambda site: site.call(functions.counted, *site.values()),
}
