"""Small random graphs of every operator that answers locally, drawn by hypothesis."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

_OPSET = 18


@dataclass(slots=True)
class GraphDraft:
    """A graph under construction; every value has one batch row.

    Attributes:
        draw: hypothesis's.
        nodes, weights: so far.
        shapes: (channels, *spatial) of every value.
    """

    draw: Any
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def pick(self, *choices: Any) -> Any:
        """One of some choices."""
        return self.draw(st.sampled_from(choices))

    def constant(self, array: np.ndarray) -> str:
        """A weight."""
        name = f"weight{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def random(self, *shape: int) -> np.ndarray:
        """Normal weights that depend on how many there are before them."""
        rng = np.random.default_rng(len(self.weights))
        return np.asarray(rng.standard_normal(shape) / math.sqrt(math.prod(shape[1:])), np.float32)

    def add(self, op: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> str:
        """A node that makes a value of that shape."""
        name = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        self.shapes[name] = shape
        return name

    def geometry(self, value: str, *, dilated: bool, half: bool) -> dict[str, list[int]] | None:
        """Kernel, strides, dilations and uneven pads that fit; None where the value is too small."""
        sizes = self.shapes[value][1:]
        kernel = [self.pick(1, 2, 3) for _ in sizes]
        dilations = [self.pick(1, 2) if dilated else 1 for _ in sizes]
        reach = [(width - 1) * spread + 1 for width, spread in zip(kernel, dilations, strict=True)]
        # Pools pad by half a window at most.
        most = [(width - 1) // 2 if half else size - 1 for width, size in zip(kernel, reach, strict=True)]
        pads = [self.draw(st.integers(0, max(each, 0))) for each in (*most, *most)]
        rank = len(sizes)
        if any(n + pads[a] + pads[a + rank] < r for a, (n, r) in enumerate(zip(sizes, reach, strict=True))):
            return None
        return {"kernel_shape": kernel, "strides": [self.pick(1, 2, 3) for _ in sizes], "dilations": dilations, "pads": pads}

    def windowed(self, value: str, geometry: dict[str, list[int]], *, ceil: bool = False) -> tuple[int, ...]:
        """Spatial sizes behind a window."""
        sizes, rank = self.shapes[value][1:], len(self.shapes[value]) - 1
        made = []
        for axis, size in enumerate(sizes):
            reach = (geometry["kernel_shape"][axis] - 1) * geometry["dilations"][axis] + 1
            begin, end, step = geometry["pads"][axis], geometry["pads"][axis + rank], geometry["strides"][axis]
            room = size + begin + end - reach
            count = (-(-room // step) if ceil else room // step) + 1
            made.append(count - 1 if ceil and (count - 1) * step >= size + begin else count)
        return tuple(made)

    def convolution(self, value: str) -> str:
        """Conv of any stride, dilation, border and group."""
        geometry = self.geometry(value, dilated=True, half=False)
        if geometry is None:
            return value
        channels = self.shapes[value][0]
        groups = self.pick(1, 1, channels)
        made = channels if groups > 1 else self.pick(2, 3)
        inputs = [value, self.constant(self.random(made, channels // groups, *geometry["kernel_shape"]))]
        if self.pick(True, False):
            inputs.append(self.constant(self.random(made)))
        return self.add("Conv", inputs, (made, *self.windowed(value, geometry)), group=groups, **geometry)

    def same_convolution(self, value: str) -> str:
        """A convolution that keeps the shape."""
        channels, *sizes = self.shapes[value]
        weight = self.constant(self.random(channels, channels, *(3 for _ in sizes)))
        return self.add("Conv", [value, weight], self.shapes[value], pads=[1] * (2 * len(sizes)), kernel_shape=[3] * len(sizes))

    def pool(self, value: str) -> str:
        """Max or average pooling."""
        geometry = self.geometry(value, dilated=False, half=True)
        if geometry is None:
            return value
        rank = len(geometry["kernel_shape"])
        # Rounding up over uneven borders differs between libraries.
        ceil = geometry["pads"][:rank] == geometry["pads"][rank:] and self.pick(False, True)
        shape = (self.shapes[value][0], *self.windowed(value, geometry, ceil=ceil))
        op = self.pick("MaxPool", "AveragePool")
        extra = {"count_include_pad": self.pick(0, 1)} if op == "AveragePool" else {}
        if op == "AveragePool":
            del geometry["dilations"]
        return self.add(op, [value], shape, ceil_mode=int(ceil), **geometry, **extra)

    def transposed(self, value: str) -> str:
        """ConvTranspose with uneven borders and output padding."""
        channels, *sizes = self.shapes[value]
        if max(sizes) > 7:
            return value
        kernel, strides = [self.pick(1, 2, 3) for _ in sizes], [self.pick(1, 2, 3) for _ in sizes]
        pads = [self.draw(st.integers(0, (width - 1) // 2)) for width in (*kernel, *kernel)]
        even = pads[: len(sizes)] == pads[len(sizes) :]
        extra = [self.draw(st.integers(0, step - 1)) if even else 0 for step in strides]
        made = [
            (n - 1) * s + k + e - pads[a] - pads[a + len(sizes)]
            for a, (n, s, k, e) in enumerate(zip(sizes, strides, kernel, extra, strict=True))
        ]
        weight = self.constant(self.random(channels, 2, *kernel))
        inputs = [value, weight, self.constant(self.random(2))]
        attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads, "output_padding": extra}
        return value if min(made) < 1 else self.add("ConvTranspose", inputs, (2, *made), **attributes)

    def enlarged(self, value: str) -> str:
        """Nearest or linear upsampling."""
        channels, *sizes = self.shapes[value]
        if max(sizes) > 7:
            return value
        factors = [self.pick(1, 2, 3) for _ in sizes]
        scales = self.constant(np.array([1, 1, *factors], np.float32))
        shape = (channels, *(size * factor for size, factor in zip(sizes, factors, strict=True)))
        modes = (
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
            {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
        )
        return self.add("Resize", [value, "", scales], shape, **self.pick(*modes))

    def elementwise(self, value: str) -> str:
        """An activation, a normalisation, a softmax over channels, or a product with a constant."""
        shape = self.shapes[value]
        match self.pick("Relu", "LeakyRelu", "Sigmoid", "BatchNormalization", "InstanceNormalization", "Softmax", "Mul"):
            case "BatchNormalization":
                numbers = [self.constant(np.abs(self.random(shape[0])) + np.float32(0.5)) for _ in range(4)]
                return self.add("BatchNormalization", [value, *numbers], shape)
            case "InstanceNormalization":
                if int(np.prod(shape[1:])) == 1:
                    return value
                return self.add("InstanceNormalization", [value, *(self.constant(self.random(shape[0])) for _ in "ab")], shape)
            case "Softmax":
                return self.add("Softmax", [value], shape, axis=1)
            case "Mul":
                places = self.pick((), shape[1:])
                return self.add(
                    "Mul", [value, self.constant(self.random(1, shape[0], *(places or [1] * len(shape[1:]))))], shape
                )
            case op:
                return self.add(op, [value], shape)

    def joined(self, value: str) -> str:
        """A residual sum, a dense concatenation, or a gate of the whole volume."""
        shape = self.shapes[value]
        match self.pick("sum", "concat", "gate"):
            case "sum":
                return self.add("Add", [value, self.same_convolution(value)], shape)
            case "concat":
                return self.add("Concat", [self.same_convolution(value), value], (2 * shape[0], *shape[1:]), axis=1)
        small = (shape[0], *(1 for _ in shape[1:]))
        gate = self.add("Sigmoid", [self.add("GlobalAveragePool", [value], small)], small)
        return self.add("Mul", [value, gate], shape)

    def moved(self, value: str) -> str:
        """A border added, or a part cut out."""
        channels, *sizes = self.shapes[value]
        if self.pick(True, False):
            widths = [self.pick(0, 1, 2) for _ in (*sizes, *sizes)]
            rank = len(sizes)
            pads = [0, 0, *widths[:rank], 0, 0, *widths[rank:]]
            made = [size + widths[a] + widths[a + rank] for a, size in enumerate(sizes)]
            inputs = [value, self.constant(np.array(pads)), self.constant(np.array(0.5, np.float32))]
            return self.add("Pad", inputs, (channels, *made), mode="constant")
        if min(sizes) < 3:
            return value
        starts, step = [self.pick(0, 1) for _ in sizes], self.pick(1, 2)
        numbers = [starts, list(sizes), list(range(2, 2 + len(sizes))), [step] * len(sizes)]
        made = [-(-(size - start) // step) for size, start in zip(sizes, starts, strict=True)]
        return self.add("Slice", [value, *(self.constant(np.array(each)) for each in numbers)], (channels, *made))

    def trunk(self, value: str, depth: int) -> str:
        """Some layers."""
        for _ in range(depth):
            layer = self.pick("convolution", "convolution", "pool", "elementwise", "joined", "enlarged", "transposed", "moved")
            value = getattr(self, layer)(value)
        return value

    def head(self, values: list[str]) -> str:
        """Vectors of all branches, joined, through a linear layer."""
        vectors = []
        for value in values:
            channels, *sizes = self.shapes[value]
            pooled = self.pick(True, False) or int(np.prod(sizes)) > 400
            if pooled:
                value = self.add("GlobalAveragePool", [value], (channels, *(1 for _ in sizes)))
            vectors.append(self.add("Flatten", [value], (channels if pooled else channels * int(np.prod(sizes)),), axis=1))
        length = sum(self.shapes[vector][0] for vector in vectors)
        joined = vectors[0] if len(vectors) == 1 else self.add("Concat", vectors, (length,), axis=1)
        return self.add("Gemm", [joined, self.constant(self.random(2, length)), self.constant(self.random(2))], (2,), transB=1)


@dataclass(frozen=True, slots=True)
class RandomGraph:
    """A model file and the shapes of its inputs, (channels, *spatial)."""

    proto: onnx.ModelProto
    inputs: tuple[tuple[int, ...], ...]


@st.composite
def random_graphs(draw: Any) -> RandomGraph:
    """One or two branches in two or three dimensions."""
    draft = GraphDraft(draw)
    rank = draw(st.sampled_from((2, 3)))
    inputs, values, ends = [], [], []
    for number in range(draw(st.sampled_from((1, 1, 2)))):
        shape = (draw(st.integers(1, 3)), *(draw(st.integers(4, 9)) for _ in range(rank)))
        name = f"input{number}"
        draft.shapes[name] = shape
        inputs.append(shape)
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]))
        ends.append(draft.trunk(name, draw(st.integers(1, 5))))
    result = draft.head(ends)
    output = helper.make_tensor_value_info(result, TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(draft.nodes, "random", values, [output], draft.weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
    return RandomGraph(proto, tuple(inputs))
