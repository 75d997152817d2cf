"""Floating-point operations of one node, counted from shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from voxplain_server.graph.onnx_graph import Graph, Node
from voxplain_server.graph.shape_reading import ExactShape

_FREE = frozenset(
    {
        *(
            "Reshape",
            "Flatten",
            "Squeeze",
            "Unsqueeze",
            "Transpose",
            "Identity",
            "Dropout",
            "Shape",
            "Size",
            "Cast",
            "CastLike",
        ),
        *("Slice", "Split", "Gather", "GatherND", "GatherElements", "Concat", "Expand", "Constant", "ConstantOfShape", "Range"),
    }
)
_POOLS = frozenset({"MaxPool", "AveragePool"})


def count_flops(graph: Graph, node: Node, shapes: Mapping[str, ExactShape]) -> float:
    """Operations of `node`: two for every multiplication with its addition, one for every other element, none for moving."""
    made = sum(math.prod(shapes[value]) for value in node.outputs if value in shapes)
    read = [_shape(graph, value, shapes) for value in node.inputs]
    first, second = (read[0] if read else ()), (read[1] if len(read) > 1 else ())
    if node.op == "Conv":
        return 2.0 * made * math.prod(second[1:])
    if node.op == "ConvTranspose":
        return 2.0 * math.prod(first) * math.prod(second[1:])
    if node.op in _POOLS:
        return float(made * math.prod(node.attributes.get("kernel_shape", ())))
    if node.op in ("Gemm", "MatMul", "Einsum"):
        inner = first[0] if node.op == "Gemm" and node.attributes.get("transA", 0) else (first[-1] if first else 1)
        return 2.0 * made * inner
    if node.op in _FREE:
        return 0.0
    return float(max([made, *(math.prod(shape) for value, shape in zip(node.inputs, read, strict=True) if value in shapes)]))


def _shape(graph: Graph, value: str, shapes: Mapping[str, ExactShape]) -> ExactShape:
    if value in shapes:
        return shapes[value]
    constant = graph.constant(value) if value else None
    return () if constant is None else constant.shape
