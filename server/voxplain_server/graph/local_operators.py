"""The table of operators that answer to a local change locally, one line each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxplain_server.graph.axis_reach import AxisReach, Slide, Spread, Whole
from voxplain_server.graph.local_rule import Operand, Rule
from voxplain_server.graph.onnx_graph import Array, Graph, Node
from voxplain_server.graph.shape_reading import ExactShape
from voxplain_server.graph.window_geometry import window_geometry
from voxplain_server.graph.work import count_flops


@dataclass(frozen=True, slots=True)
class Place:
    """One node whose voxel-dependent inputs are all local.

    Attributes:
        graph: it stands in.
        node: it.
        voxels: the values that depend on voxels.
        shapes: of every value.
    """

    graph: Graph
    node: Node
    voxels: frozenset[str]
    shapes: Mapping[str, ExactShape]

    @property
    def made(self) -> ExactShape:
        """Shape of the result."""
        return self.shapes[self.node.outputs[0]]

    @property
    def rank(self) -> int:
        """Axes of the result."""
        return len(self.made)

    @property
    def dependent(self) -> list[str]:
        """The inputs that depend on voxels, in order."""
        return [value for value in self.node.inputs if value in self.voxels]

    def shape(self, index: int) -> ExactShape:
        """Shape of an input that depends on voxels."""
        return self.shapes[self.node.inputs[index]]

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute of the node, or `default`."""
        return self.node.attributes.get(name, default)

    def constant(self, index: int) -> Array | None:
        """The elements of a constant input; None where it is absent or computed."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else ""
        return self.graph.constant(value) if value else None

    def others_are_constant(self) -> bool:
        """Whether every input that does not depend on voxels is a constant."""
        others = [value for value in self.node.inputs if value and value not in self.voxels]
        return all(self.graph.constant(value) is not None for value in others)

    def integers(self, index: int, attribute: str) -> list[int] | None:
        """Axes, sizes, pads: from a constant input, or from the attribute of older operator sets; None where absent."""
        if attribute in self.node.attributes:
            found = self.node.attributes[attribute]
            return [int(item) for item in found] if isinstance(found, tuple) else [int(found)]
        constant = self.constant(index)
        return None if constant is None else [int(item) for item in np.ravel(constant)]


Finder = Callable[[Place], Sequence[Operand] | None]


def find_rule(graph: Graph, node: Node, voxels: frozenset[str], shapes: Mapping[str, ExactShape]) -> Rule | None:
    """How `node` answers to a local change; None: it has to be evaluated whole, with all behind it."""
    finder = _FINDERS.get(node.op)
    known = all(value in shapes for value in (*node.outputs[:1], *(v for v in node.inputs if v in voxels)))
    if finder is None or not known or any(node.outputs[1:]):
        return None
    place = Place(graph, node, voxels, shapes)
    if not (node.op in _SHAPE_IS_KNOWN or place.others_are_constant()) or not place.made or 0 in place.made:
        return None
    operands = finder(place)
    if operands is None:
        return None
    # Cases are stacked on axis 0: it has to be followed row by row.
    rows = all(isinstance(each.axes[0], Slide) and each.axes[0].source == 0 for each in operands)
    return Rule(tuple(operands), count_flops(graph, node, shapes), rows)


def _pointwise(place: Place) -> list[Operand] | None:
    operands: list[list[AxisReach]] = []
    for value in place.dependent:
        shape = place.shapes[value]
        if len(shape) != place.rank:
            return None
        if shape[0] != place.made[0]:
            return None
        # What is broadcast along an axis changes all of it.
        operands.append([Slide(axis) if shape[axis] == size else Whole(axis) for axis, size in enumerate(place.made)])
    for value in place.node.inputs:
        constant = None if value in place.voxels or not value else place.graph.constant(value)
        if constant is None:
            continue
        if constant.ndim > place.rank:
            return None
        offset = place.rank - constant.ndim
        for axis, size in enumerate(constant.shape):
            # A constant that differs from place to place fits only where the whole axis is at hand.
            if size > 1 and offset + axis != 1:
                for axes in operands:
                    axes[offset + axis] = Whole(offset + axis)
    return [Operand(value, tuple(_whole_channels(axes))) for value, axes in zip(place.dependent, operands, strict=True)]


def _per_channel(place: Place) -> list[Operand] | None:
    if len(place.dependent) != 1 or place.node.inputs[0] not in place.voxels or place.rank < 2:
        return None
    return [Operand(place.node.inputs[0], tuple(_whole_channels([Slide(axis) for axis in range(place.rank)])))]


def _whole_channels(axes: list[AxisReach]) -> list[AxisReach]:
    return [Whole(1) if axis == 1 else reach for axis, reach in enumerate(axes)]


def _windows(place: Place, *, fill: float) -> list[Operand] | None:
    geometry = window_geometry(place.node, place.shape(0), _kernel(place))
    if geometry is None:
        return None
    axes: list[AxisReach] = [Slide(0), Whole(1)]
    for axis, (width, step, spread, begin) in enumerate(
        zip(geometry.kernel, geometry.strides, geometry.dilations, geometry.begins, strict=True), start=2
    ):
        axes.append(Slide(axis, (width - 1) * spread + 1, step, begin))
    return [Operand(place.node.inputs[0], tuple(axes), fill)]


def _kernel(place: Place) -> tuple[int, ...]:
    if place.node.op in ("Conv", "ConvTranspose"):
        weight = place.constant(1)
        return () if weight is None else tuple(weight.shape[2:])
    return tuple(place.attribute("kernel_shape"))


def _convolution(place: Place) -> list[Operand] | None:
    # A weight that depends on voxels is no convolution with a window.
    return _windows(place, fill=0.0) if len(place.dependent) == 1 and place.node.inputs[0] in place.voxels else None


def _max_pool(place: Place) -> list[Operand] | None:
    return _windows(place, fill=-math.inf)


def _average_pool(place: Place) -> list[Operand] | None:
    return None if any(step != 1 for step in place.attribute("dilations", ())) else _windows(place, fill=0.0)


def _transposed_convolution(place: Place) -> list[Operand] | None:
    if len(place.dependent) != 1 or place.node.inputs[0] not in place.voxels:
        return None
    if place.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or place.attribute("output_shape") is not None:
        return None
    kernel = _kernel(place)
    steps = tuple(place.attribute("strides", (1,) * len(kernel)))
    dilations = tuple(place.attribute("dilations", (1,) * len(kernel)))
    begins = tuple(place.attribute("pads", (0,) * (2 * len(kernel))))[: len(kernel)]
    spreads = [
        Spread(axis, (width - 1) * spread + 1, step, begin)
        for axis, (width, step, spread, begin) in enumerate(zip(kernel, steps, dilations, begins, strict=True), start=2)
    ]
    return [Operand(place.node.inputs[0], (Slide(0), Whole(1), *spreads))]


def _resize(place: Place) -> list[Operand] | None:
    """Enlarging by whole factors, where the place in the volume does not change the weights."""
    shape, made = place.shape(0), place.made
    if shape[:2] != made[:2] or any(large % small for small, large in zip(shape, made, strict=True)):
        return None
    upsample = place.node.op == "Upsample"
    mode = place.attribute("mode", "nearest")
    kind = place.attribute("coordinate_transformation_mode", "asymmetric" if upsample else "half_pixel")
    factors = [large // small for small, large in zip(shape, made, strict=True)][2:]
    scales = _scales(place)
    if scales is not None and any(scale != factor for scale, factor in zip(scales[-len(factors) :], factors, strict=True)):
        return None
    if mode == "nearest" and kind in ("asymmetric", "half_pixel"):
        spreads = [Spread(axis, factor, factor) for axis, factor in enumerate(factors, start=2)]
    elif mode == "linear" and kind in ("half_pixel", "pytorch_half_pixel") and len(factors) in (1, 2, 3):
        # Element i weighs on every o with |(o + 1/2) / factor - 1/2 - i| < 1.
        spreads = [Spread(axis, 2 * factor - factor % 2, factor, factor // 2) for axis, factor in enumerate(factors, start=2)]
    else:
        return None
    return [Operand(place.node.inputs[0], (Slide(0), Whole(1), *spreads))]


def _scales(place: Place) -> list[float] | None:
    older = place.node.op == "Upsample" or place.graph.opset < 11
    found = place.attribute("scales") if older else None
    constant = place.constant(1 if older else 2)
    if found is not None:
        return [float(scale) for scale in found]
    return None if constant is None or constant.size == 0 else [float(scale) for scale in np.ravel(constant)]


def _concatenation(place: Place) -> list[Operand] | None:
    axis = int(place.attribute("axis", 1)) % place.rank
    if len(place.dependent) != len(place.node.inputs):
        return None
    axes = tuple(Whole(each) if each in (1, axis) else Slide(each) for each in range(place.rank))
    return [Operand(value, axes) for value in place.dependent]


def _padding(place: Place) -> list[Operand] | None:
    pads, axes = place.integers(1, "pads"), place.integers(3, "axes")
    if place.attribute("mode", "constant") != "constant" or pads is None:
        return None
    fill = place.constant(2)
    places = list(range(place.rank)) if axes is None else [axis % place.rank for axis in axes]
    begins = dict(zip(places, pads[: len(places)], strict=True))
    value = float(place.attribute("value", 0.0)) if fill is None else float(fill.reshape(()))
    return [Operand(place.node.inputs[0], tuple(Slide(axis, begin=begins.get(axis, 0)) for axis in range(place.rank)), value)]


def _slice(place: Place) -> list[Operand] | None:
    starts, ends = place.integers(1, "starts"), place.integers(2, "ends")
    axes, steps = place.integers(3, "axes"), place.integers(4, "steps")
    if starts is None or ends is None or (steps is not None and any(step < 1 for step in steps)):
        return None
    places = list(range(len(starts))) if axes is None else [axis % place.rank for axis in axes]
    shape = place.shape(0)
    begins, strides = [0] * place.rank, [1] * place.rank
    for axis, start, step in zip(places, starts, [1] * len(starts) if steps is None else steps, strict=True):
        begins[axis] = min(max(start + shape[axis] if start < 0 else start, 0), shape[axis])
        strides[axis] = step
    reach = tuple(Slide(axis, 1, strides[axis], -begins[axis]) for axis in range(place.rank))
    return [Operand(place.node.inputs[0], reach)]


def _axis_map(place: Place) -> list[Operand] | None:
    """Axes move, and axes of one element come and go: nothing else does."""
    shape, made = place.shape(0), place.made
    if place.node.op == "Transpose":
        order = place.attribute("perm") or tuple(reversed(range(len(shape))))
        return [Operand(place.node.inputs[0], tuple(Slide(int(axis)) for axis in order))]
    if [size for size in shape if size != 1] == [size for size in made if size != 1]:
        longer = iter([axis for axis, size in enumerate(shape) if size != 1])
        spare = [axis for axis, size in enumerate(shape) if size == 1]
        reach: list[AxisReach] = []
        for axis, size in enumerate(made):
            if size != 1:
                reach.append(Slide(next(longer)))
            elif axis < len(shape) and axis in spare:
                reach.append(Slide(axis))
            else:
                reach.append(Whole(None))
        return [Operand(place.node.inputs[0], tuple(reach))]
    if shape[0] == made[0]:
        return [Operand(place.node.inputs[0], (Slide(0), *(Whole(None) for _ in made[1:])))]
    return None


def _along(axes: Sequence[int], place: Place) -> list[Operand] | None:
    shape, made = place.shape(0), place.made
    if len(place.dependent) != 1 or place.node.inputs[0] not in place.voxels:
        return None
    taken = {axis % len(shape) for axis in axes}
    if len(made) == len(shape):
        sources = list(range(len(shape)))
    elif len(made) == len(shape) - len(taken):
        sources = [axis for axis in range(len(shape)) if axis not in taken]
    else:
        return None
    reach = tuple(Whole(axis) if axis in taken or axis == 1 else Slide(axis) for axis in sources)
    return [Operand(place.node.inputs[0], reach)]


def _over_space(place: Place) -> list[Operand] | None:
    return _along(range(2, len(place.shape(0))), place)


def _normalised_over_space(place: Place) -> list[Operand] | None:
    return _along(range(1, len(place.shape(0))), place)


def _reduction(place: Place) -> list[Operand] | None:
    axes = place.integers(1, "axes")
    if not axes and place.attribute("noop_with_empty_axes", 0):
        return _pointwise(place)
    return _along(axes or range(len(place.shape(0))), place)


def _along_attribute(default: int) -> Finder:
    return lambda place: _along([int(place.attribute("axis", default))], place)


def _layer_normalisation(place: Place) -> list[Operand] | None:
    rank = len(place.shape(0))
    return _along(range(int(place.attribute("axis", -1)) % rank, rank), place)


def _linear(place: Place) -> list[Operand] | None:
    if place.attribute("transA", 0) or (place.node.op == "MatMul" and len(_constant_shape(place, 1)) != 2):
        return None
    bias = _constant_shape(place, 2)
    if place.node.op == "Gemm" and len(bias) == 2 and bias[0] != 1:
        return None
    return _along([-1], place)


def _constant_shape(place: Place, index: int) -> tuple[int, ...]:
    constant = place.constant(index)
    return () if constant is None else tuple(constant.shape)


_ELEMENTWISE = (
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Celu", "Sigmoid", "Tanh", "Gelu", "Softplus", "Softsign", "HardSwish", "Mish"),
    *("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Max", "Min", "Sum", "Mean", "Abs", "Neg", "Sign", "Reciprocal", "Sqrt", "Exp"),
    *(
        "Log",
        "Erf",
        "Sin",
        "Cos",
        "Floor",
        "Ceil",
        "Round",
        "Clip",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
    ),
    *("And", "Or", "Xor", "Not", "IsNaN", "Where", "Cast", "CastLike", "Identity", "Dropout"),
)
_REDUCTIONS = (
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare"),
    *("ReduceLogSum", "ReduceLogSumExp"),
)

_SHAPE_IS_KNOWN = frozenset({"Reshape", "Squeeze", "Unsqueeze"})
"""The shape of the result says all, wherever the graph computes it."""

_FINDERS: dict[str, Finder] = {
    **dict.fromkeys(_ELEMENTWISE, _pointwise),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    **dict.fromkeys(("Squeeze", "Unsqueeze", "Transpose", "Reshape", "Flatten"), _axis_map),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _over_space),
    **dict.fromkeys(("InstanceNormalization", "GroupNormalization"), _normalised_over_space),
    **dict.fromkeys(("Gemm", "MatMul"), _linear),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _along_attribute(-1)),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "BatchNormalization": _per_channel,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "LayerNormalization": _layer_normalisation,
    "Concat": _concatenation,
    "Pad": _padding,
    "Slice": _slice,
}
