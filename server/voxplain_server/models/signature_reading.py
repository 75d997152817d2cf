"""The signature of an ONNX file."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx

from voxplain_server.graph.onnx_graph import Graph, Shape
from voxplain_server.models.signature import FREE, Signature, TensorFace, datatype_of


def read_signature(proto: onnx.ModelProto, graph: Graph) -> Signature:
    """What the file reads and answers, under its own names.

    Args:
        proto: the file.
        graph: the same as it was read: it knows shapes that the file does not state.
    """
    weights = {each.name for each in proto.graph.initializer} | {each.values.name for each in proto.graph.sparse_initializer}
    # Old exporters list their weights among the inputs; nobody feeds those.
    inputs = [value for value in proto.graph.input if value.name not in weights]
    return Signature(_faces(inputs, graph), _faces(proto.graph.output, graph))


def _faces(values: Iterable[onnx.ValueInfoProto], graph: Graph) -> tuple[TensorFace, ...]:
    found = []
    for value in values:
        tensor = value.type.tensor_type
        stated = tensor.elem_type not in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
        element = (
            np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
            if stated
            else graph.types.get(graph.resolve(value.name))
        )
        datatype = "" if element is None else datatype_of(element)
        if value.type.WhichOneof("value") in ("tensor_type", None) and datatype:
            found.append(TensorFace(value.name, datatype, _shape(tensor, graph.shape(value.name))))
    return tuple(found)


def _shape(tensor: onnx.TypeProto.Tensor, inferred: Shape | None) -> tuple[int, ...] | None:
    if tensor.HasField("shape"):
        return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else FREE for dim in tensor.shape.dim)
    if inferred is None:
        return None
    return tuple(size if isinstance(size, int) else FREE for size in inferred)
