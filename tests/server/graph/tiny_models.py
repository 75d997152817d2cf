"""ONNX models of a few nodes, written by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Dimensions = Sequence[int | str]


def model_of(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Mapping[str, Dimensions],
    outputs: Sequence[str],
    constants: Mapping[str, Any] | None = None,
    opset: int = 18,
    input_types: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A checked model: float32 inputs unless `input_types` says otherwise; outputs of any type and shape."""
    types = input_types or {}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, types.get(name, onnx.TensorProto.FLOAT), shape) for name, shape in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    del model.graph.output[:]
    known = {info.name: info for info in (*inferred.graph.output, *inferred.graph.value_info)}
    model.graph.output.extend(known[name] for name in outputs)
    return model


def relu_model() -> onnx.ModelProto:
    """One linear layer and a ReLU: input x (batch, 4), output y (batch, 3)."""
    weight = np.arange(12, dtype=np.float32).reshape(4, 3) - 5
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    return model_of(nodes, inputs={"x": ("batch", 4)}, outputs=["y"], constants={"w": weight})
