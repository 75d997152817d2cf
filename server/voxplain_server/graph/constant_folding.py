"""Evaluating one ONNX operator on constants, within a bound on the size of its result."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx.shape_inference

from voxplain_server.graph.onnx_graph import Array, Shape

MAX_FOLDED_ELEMENTS = 1 << 26
"""A file of a few bytes may ask for a constant of any size; beyond this the operator stays in the graph."""

_NEVER_FOLDED = frozenset(
    {
        "If",
        "Loop",
        "Scan",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
    }
)


def constant_of(node: onnx.NodeProto) -> Array | None:
    """The elements of a Constant node; None for text and for sparse tensors."""
    attribute = node.attribute[0]
    match attribute.name:
        case "value":
            return onnx.numpy_helper.to_array(attribute.t)
        case "value_float":
            return np.array(attribute.f, np.float32)
        case "value_floats":
            return np.array(attribute.floats, np.float32)
        case "value_int":
            return np.array(attribute.i, np.int64)
        case "value_ints":
            return np.array(attribute.ints, np.int64)
    return None


def fold(node: onnx.NodeProto, inputs: Mapping[str, Array], *, opset: int) -> list[Array] | None:
    """The outputs of `node` for constant `inputs`; None where they are too large, unknown in size, or cannot be computed."""
    if node.op_type in _NEVER_FOLDED or not _is_small_enough(node, inputs, opset=opset):
        return None
    # A reference kernel may fail in any way; the operator then stays in the graph.
    try:
        evaluator = onnx.reference.ReferenceEvaluator(node, opsets={"": opset})
        results = evaluator.run(None, dict(inputs))
    except Exception:
        return None
    if not isinstance(results, Sequence) or not all(isinstance(result, (np.ndarray, np.generic)) for result in results):
        return None
    return [np.asarray(result) for result in results]


def part_of_shape(node: onnx.NodeProto, shape: Shape, inputs: Sequence[Array | None], *, opset: int) -> Array | None:
    """What Gather or Slice picks from a tensor's shape, if all that it picks is known although other axes are not."""
    if node.op_type not in ("Gather", "Slice") or any(picked is None for picked in inputs):
        return None
    unknown = -1
    sizes = np.array([size if isinstance(size, int) else unknown for size in shape], np.int64)
    named = {name: value for name, value in zip(node.input[1:], inputs, strict=True) if value is not None}
    results = fold(node, {node.input[0]: sizes, **named}, opset=opset)
    if results is None or np.any(results[0] == unknown):
        return None
    return results[0]


def _is_small_enough(node: onnx.NodeProto, inputs: Mapping[str, Array], *, opset: int) -> bool:
    tensors = {name: _tensor(value) for name, value in inputs.items()}
    types = {name: onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims) for name, tensor in tensors.items()}
    small = {name: tensor for name, tensor in tensors.items() if inputs[name].size <= 1024}
    try:
        outputs = onnx.shape_inference.infer_node_outputs(
            _schema(node.op_type, opset),
            node,
            types,
            small,
            opset_imports=[onnx.helper.make_opsetid("", opset)],
            ir_version=onnx.IR_VERSION,
        )
    except (onnx.shape_inference.InferenceError, onnx.defs.SchemaError, RuntimeError, ValueError, KeyError):
        return False
    for output in outputs.values():
        dims = output.tensor_type.shape.dim
        if not output.tensor_type.HasField("shape") or not all(dim.HasField("dim_value") for dim in dims):
            return False
        if math.prod(dim.dim_value for dim in dims) > MAX_FOLDED_ELEMENTS:
            return False
    return bool(outputs)


def _tensor(value: Array) -> Any:
    if value.size <= 1024:
        return onnx.numpy_helper.from_array(value)
    return onnx.TensorProto(data_type=onnx.helper.np_dtype_to_tensor_dtype(value.dtype), dims=value.shape)


@functools.cache
def _schema(op: str, opset: int) -> onnx.defs.OpSchema:
    return onnx.defs.get_schema(op, opset, "")
