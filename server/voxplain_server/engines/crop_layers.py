"""Layers on crops: every border that a layer needs is in the crop already, so none pads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from voxplain_server.engines.box_copy import cut_boxes
from voxplain_server.engines.crop_tensor import by_case
from voxplain_server.engines.packed_convolution import PackedConvolution, can_pack
from voxplain_server.graph.box_reach import Corners
from voxplain_server.graph.locality import Locality, Step
from voxplain_server.graph.twin import Twin
from voxplain_server.graph.window_geometry import WindowGeometry, window_geometry

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_MAX_POOL = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE_POOL = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, slots=True, eq=False)
class CropPlace:
    """Where a step's crops and result lie.

    Attributes:
        count: perturbations that are stacked.
        start: (count, axes) of the result.
        size: (axes,) edges of the result.
        crop_starts: for each operand (count, axes).
    """

    count: int
    start: Corners
    size: npt.NDArray[np.int64]
    crop_starts: tuple[Corners, ...]


class CropLayer(Protocol):
    """Computes one step on stacked crops, one for each operand; gives (count * size[0], *size[1:])."""

    def __call__(self, crops: Sequence[Tensor], place: CropPlace) -> Tensor: ...


def build_layer(step: Step, locality: Locality, twin: Twin, *, precise: bool = False) -> CropLayer:
    """The layer that computes `step` with the weights of the twin, on its device.

    Args:
        step: the step.
        locality: for the shapes.
        twin: has the weights.
        precise: whether it computes in float64, whatever the twin computes in.
    """
    builder = _BUILDERS.get(step.node.op, _as_in_twin)
    return builder(_Making(step, locality, twin, precise))


@dataclass(frozen=True, slots=True)
class _Making:
    step: Step
    locality: Locality
    twin: Twin
    precise: bool

    @property
    def module(self) -> Any:
        return self.twin.get_submodule(str(self.fx_node.target))

    @property
    def fx_node(self) -> fx.Node:
        return fx_node_of(self.twin, self.step.output)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.locality.shapes[self.step.rule.operands[0].value]

    def geometry(self, kernel: tuple[int, ...]) -> WindowGeometry:
        found = window_geometry(self.step.node, self.shape, kernel)
        if found is None:
            raise ValueError("a window without a geometry")
        return found


def fx_node_of(twin: Twin, value: str) -> fx.Node:
    """The node of the twin that makes an ONNX value."""
    name = twin.onnx_values[value]
    found: fx.Node = next(node for node in twin.graph.nodes if node.name == name)
    return found


def _convolution(making: _Making) -> CropLayer:
    module = making.module
    weight, bias, groups = module.weight, module.bias, module.groups
    geometry = making.geometry(tuple(weight.shape[2:]))
    rank = len(geometry.kernel)
    strides, dilations = list(geometry.strides), list(geometry.dilations)
    if can_pack(weight):
        packed = PackedConvolution(weight, bias, stride=strides, padding=[0] * rank, dilation=dilations, groups=groups)
        return lambda crops, place: packed(crops[0])
    return lambda crops, place: _CONVOLVE[rank](crops[0], weight, bias, strides, 0, dilations, groups)


def _transposed_convolution(making: _Making) -> CropLayer:
    node = making.fx_node
    # Uneven borders stand behind the module as a crop of their own.
    module: Any = making.twin.get_submodule(str(node.target if node.op == "call_module" else node.all_input_nodes[0].target))
    weight, bias = module.weight, module.bias
    strides, dilations, groups = module.stride, module.dilation, module.groups
    rank = weight.ndim - 2
    pads = making.step.node.attributes.get("pads", (0,) * (2 * rank))
    begins = np.array([0, 0, *pads[:rank]], np.int64)
    factors = np.array([1, 1, *strides], np.int64)

    def layer(crops: Sequence[Tensor], place: CropPlace) -> Tensor:
        offset = place.start - (place.crop_starts[0] * factors - begins)
        offset[:, 1] = 0
        extra = _missing(offset, place.size, crops[0].shape, weight.shape, strides, dilations)
        spread = _TRANSPOSED[rank](crops[0], weight, bias, strides, 0, extra, groups, dilations)
        return cut_boxes(spread, place.count, offset, place.size)

    return layer


def _missing(
    offset: Corners,
    size: npt.NDArray[np.int64],
    crop: Sequence[int],
    weight: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """How far the result reaches beyond all that the crop writes to: there is only bias."""
    behind = (offset + size).max(axis=0)[2:]
    made = [
        (edge - 1) * step + (width - 1) * spread + 1
        for edge, step, width, spread in zip(crop[2:], strides, weight[2:], dilations, strict=True)
    ]
    return [max(int(end) - length, 0) for end, length in zip(behind, made, strict=True)]


def _max_pool(making: _Making) -> CropLayer:
    geometry = making.geometry(tuple(making.step.node.attributes["kernel_shape"]))
    rank = len(geometry.kernel)
    if set(geometry.dilations) == {1} and geometry.strides == geometry.kernel:
        return lambda crops, place: _largest_of_blocks(crops[0], geometry.kernel)
    return lambda crops, place: _MAX_POOL[rank](crops[0], geometry.kernel, geometry.strides, 0, geometry.dilations)


def _largest_of_blocks(crop: Tensor, kernel: Sequence[int]) -> Tensor:
    """Max pooling without overlap: axis by axis, which is two to three times as fast as torch's own on small crops."""
    for axis, width in enumerate(kernel, start=2):
        if width > 1:
            stop = crop.shape[axis] // width * width
            parts = [crop[(slice(None),) * axis + (slice(first, stop, width),)] for first in range(width)]
            crop = parts[0]
            for part in parts[1:]:
                crop = torch.maximum(crop, part)
    return crop


def _average_pool(making: _Making) -> CropLayer:
    geometry = making.geometry(tuple(making.step.node.attributes["kernel_shape"]))
    rank = len(geometry.kernel)
    counted = bool(making.step.node.attributes.get("count_include_pad", 0))
    made = making.locality.shapes[making.step.output][2:]
    counts = [
        _counts(size, length, width, step, begin, end, counted=counted)
        for size, length, width, step, begin, end in zip(
            making.shape[2:], made, geometry.kernel, geometry.strides, geometry.begins, geometry.ends, strict=True
        )
    ]
    uneven = any((count != width).any() for count, width in zip(counts, geometry.kernel, strict=True))

    def layer(crops: Sequence[Tensor], place: CropPlace) -> Tensor:
        mean: Tensor = _AVERAGE_POOL[rank](crops[0], geometry.kernel, geometry.strides)
        return mean * _shares(mean, place, counts, geometry.kernel) if uneven else mean

    return layer


def _counts(size: int, made: int, width: int, step: int, begin: int, end: int, *, counted: bool) -> npt.NDArray[np.int64]:
    """Along one axis, by how many elements each window is divided."""
    first = np.arange(made) * step - begin
    lower, upper = (-begin, size + end) if counted else (0, size)
    return np.minimum(first + width, upper) - np.maximum(first, lower)


def _shares(mean: Tensor, place: CropPlace, counts: Sequence[npt.NDArray[np.int64]], kernel: Sequence[int]) -> Tensor:
    """What turns the mean over whole windows into the mean over what counts: (count * rows, 1, *size)."""
    rows, total = int(place.size[0]), np.ones((place.count, *(1 for _ in kernel)))
    for axis, (count, width) in enumerate(zip(counts, kernel, strict=True)):
        along = place.start[:, axis + 2, None] + np.arange(place.size[axis + 2])
        shape = [place.count, *(1 for _ in kernel)]
        shape[axis + 1] = -1
        total = total * (width / count[along]).reshape(shape)
    return torch.from_numpy(total).to(mean.device, mean.dtype).repeat_interleave(rows, dim=0)[:, None]


def _resize(making: _Making) -> CropLayer:
    made = making.locality.shapes[making.step.output]
    factors = np.array([large // small for small, large in zip(making.shape, made, strict=True)], np.int64)
    scales = [float(factor) for factor in factors[2:]]
    nearest = making.step.node.attributes.get("mode", "nearest") == "nearest"
    mode = "nearest" if nearest else _LINEAR[len(scales)]

    def layer(crops: Sequence[Tensor], place: CropPlace) -> Tensor:
        enlarged = functional.interpolate(crops[0], scale_factor=scales, mode=mode, align_corners=None if nearest else False)
        offset = place.start - place.crop_starts[0] * factors
        offset[:, 1] = 0
        return cut_boxes(enlarged, place.count, offset, place.size)

    return layer


def _moved(making: _Making) -> CropLayer:
    """Pad and Slice: the crop is the result, but for steps between elements."""
    steps = tuple(slice(None, None, getattr(axis, "step", 1)) for axis in making.step.rule.operands[0].axes)
    if all(step.step == 1 for step in steps):
        return lambda crops, place: crops[0]
    return lambda crops, place: by_case(crops[0], place.count)[(slice(None), *steps)].flatten(0, 1)


def _reshaped(making: _Making) -> CropLayer:
    def layer(crops: Sequence[Tensor], place: CropPlace) -> Tensor:
        return crops[0].reshape(place.count * int(place.size[0]), *(int(edge) for edge in place.size[1:]))

    return layer


def _transposed(making: _Making) -> CropLayer:
    order = [getattr(axis, "source", 0) + 1 for axis in making.step.rule.operands[0].axes]

    def layer(crops: Sequence[Tensor], place: CropPlace) -> Tensor:
        rows = by_case(crops[0], place.count).permute(0, *order)
        return rows.flatten(0, 1)

    return layer


def _as_in_twin(making: _Making) -> CropLayer:
    """Whatever the twin does, on crops in place of whole values."""
    values = [operand.value for operand in making.step.rule.operands]
    call = partial_call(making.twin, making.fx_node, values, precise=making.precise)
    if making.step.rule.rows:
        return lambda crops, place: call(crops)

    def one_by_one(crops: Sequence[Tensor], place: CropPlace) -> Tensor:
        cases = [by_case(crop, place.count) for crop in crops]
        return torch.cat([call([case[number] for case in cases]) for number in range(place.count)])

    return one_by_one


def partial_call(twin: Twin, node: fx.Node, values: Sequence[str], *, precise: bool) -> Callable[[Sequence[Tensor]], Tensor]:
    """One node of the twin as a function of some of its operands; the others are its constants."""
    places = {twin.onnx_values[value]: place for place, value in enumerate(values)}
    constants = {source: _constant(twin, source) for source in node.all_input_nodes if source.name not in places}
    target: Any = twin.get_submodule(str(node.target)) if node.op == "call_module" else node.target
    if precise:
        target = copy.deepcopy(target).double() if isinstance(target, nn.Module) else target
        constants = {source: _in_float64(constant) for source, constant in constants.items()}

    def call(crops: Sequence[Tensor]) -> Tensor:
        def operand(source: fx.Node) -> Any:
            return crops[places[source.name]] if source.name in places else constants[source]

        made: Tensor = target(*fx.node.map_arg(node.args, operand), **fx.node.map_arg(node.kwargs, operand))
        return made

    return call


def _in_float64(constant: Any) -> Any:
    return constant.double() if isinstance(constant, Tensor) and constant.is_floating_point() else constant


def _constant(twin: Twin, node: fx.Node) -> Any:
    if node.op == "get_attr":
        found: Any = twin
        for name in str(node.target).split("."):
            found = getattr(found, name)
        return found
    sources: Mapping[fx.Node, Any] = {source: _constant(twin, source) for source in node.all_input_nodes}
    target: Callable[..., Any] = node.target  # type: ignore[assignment]
    return target(*fx.node.map_arg(node.args, lambda source: sources[source]))


_BUILDERS: dict[str, Callable[[_Making], CropLayer]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "Resize": _resize,
    "Upsample": _resize,
    "Pad": _moved,
    "Slice": _moved,
    "Squeeze": _reshaped,
    "Unsqueeze": _reshaped,
    "Reshape": _reshaped,
    "Flatten": _reshaped,
    "Transpose": _transposed,
}
