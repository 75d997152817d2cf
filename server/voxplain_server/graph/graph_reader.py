"""From a protobuf to the typed view: shapes inferred, constants folded, operators that do nothing removed."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.shape_inference

from voxplain_server.graph.constant_folding import constant_of, fold, part_of_shape
from voxplain_server.graph.model_file_error import ModelFileError
from voxplain_server.graph.onnx_graph import Array, Graph, Node, Shape
from voxplain_server.graph.unsupported_operator import UnsupportedOperator

_MAX_ROUNDS = 8
"""Each round of folding may let shape inference see further; real exports settle after two or three."""
_SMALL = 1024
"""Constants up to this many elements are shown to shape inference; of larger ones only type and shape."""


def read_graph(model: onnx.ModelProto) -> Graph:
    """Read `model`, self-contained and with its local functions inlined, as `read_onnx` leaves it. It is not changed."""
    return _Reading(model).graph()


class _Reading:
    def __init__(self, model: onnx.ModelProto) -> None:
        proto = model.graph
        if proto.sparse_initializer:
            raise UnsupportedOperator(("sparse initializer",))
        self._model = model
        self._opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
        self._constants: dict[str, Array] = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.initializer}
        self._inputs = [value for value in proto.input if value.name not in self._constants]
        self._outputs = tuple(value.name for value in proto.output)
        self._nodes: list[onnx.NodeProto] = list(proto.node)
        self._aliases: dict[str, str] = {}
        self._shapes: dict[str, Shape] = {}
        self._types: dict[str, int] = {}

    def graph(self) -> Graph:
        for _ in range(_MAX_ROUNDS):
            self._infer_shapes()
            before = len(self._nodes)
            self._nodes = [kept for node in self._nodes if (kept := self._simplify(node)) is not None]
            if len(self._nodes) == before:
                break
        nodes = _contributing(self._nodes, self._outputs)
        used = {value for node in nodes for value in node.input} | set(self._outputs)
        constants = {name: value for name, value in self._constants.items() if name in used}
        shapes = dict(self._shapes) | {name: tuple(value.shape) for name, value in constants.items()}
        types = {name: dtype for name, code in self._types.items() if (dtype := _dtype(code)) is not None}
        types |= {name: value.dtype for name, value in constants.items()}
        return Graph(
            inputs=tuple(value.name for value in self._inputs),
            outputs=self._outputs,
            nodes=tuple(_node(node) for node in nodes),
            initializers=constants,
            shapes=shapes,
            types=types,
            aliases=dict(self._aliases),
            opset=self._opset,
        )

    def _infer_shapes(self) -> None:
        """Infer on a model without the weights: only their types and shapes matter, and they may be gigabytes."""
        used = {value for node in self._nodes for value in node.input}
        constants = {name: value for name, value in self._constants.items() if name in used}
        small = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items() if value.size <= _SMALL]
        large = [
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in constants.items()
            if value.size > _SMALL
        ]
        proto = onnx.helper.make_graph(self._nodes, "shapes", [*self._inputs, *large], list(self._model.graph.output), small)
        skeleton = onnx.helper.make_model(proto, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)
        try:
            inferred = onnx.shape_inference.infer_shapes(skeleton, check_type=False, strict_mode=False, data_prop=True).graph
        except (onnx.shape_inference.InferenceError, RuntimeError) as error:
            raise ModelFileError("CORRUPT_MODEL_FILE", "the shapes in the model contradict each other") from error
        for info in (*inferred.input, *inferred.value_info, *inferred.output):
            tensor = info.type.tensor_type
            self._types[info.name] = tensor.elem_type
            if tensor.HasField("shape"):
                self._shapes[info.name] = tuple(_dimension(dim) for dim in tensor.shape.dim)

    def _simplify(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The node as it stays, or None if it became constants or nothing."""
        if any(value in self._aliases for value in node.input):
            node = _with_inputs(node, [self._aliases.get(value, value) for value in node.input])
        constants = self._folded(node)
        if constants is not None:
            self._constants.update((name, value) for name, value in zip(node.output, constants, strict=False) if name)
            return None
        if self._does_nothing(node) and node.output[0] not in self._outputs:
            self._aliases[node.output[0]] = node.input[0]
            return None
        return node

    def _folded(self, node: onnx.NodeProto) -> list[Array] | None:
        if node.op_type == "Constant":
            value = constant_of(node)
            return None if value is None else [value]
        if node.op_type in ("Shape", "Size"):
            return self._folded_shape(node)
        if node.op_type == "CastLike":
            target = _dtype(self._types.get(node.input[1], 0))
            value = self._constants.get(node.input[0])
            return None if value is None or target is None else [value.astype(target)]
        present = [value for value in node.input if value]
        if present and all(value in self._constants for value in present):
            return fold(node, {value: self._constants[value] for value in present}, opset=self._opset)
        producer = self._shape_source(node)
        if producer is not None:
            picks = [self._constants.get(value) for value in node.input[1:]]
            picked = part_of_shape(node, producer, picks, opset=self._opset)
            return None if picked is None else [picked]
        return None

    def _folded_shape(self, node: onnx.NodeProto) -> list[Array] | None:
        shape = self._known_shape(node.input[0])
        if shape is None:
            return None
        if node.op_type == "Shape":
            shape = _range_of(node, shape)
        sizes = [size for size in shape if isinstance(size, int)]
        if len(sizes) < len(shape):
            return None
        return [np.array(sizes, np.int64) if node.op_type == "Shape" else np.array(np.prod(sizes), np.int64)]

    def _known_shape(self, value: str) -> Shape | None:
        return self._constants[value].shape if value in self._constants else self._shapes.get(value)

    def _shape_source(self, node: onnx.NodeProto) -> Shape | None:
        """The shape that the first input of `node` holds, if a Shape node makes it."""
        if node.op_type not in ("Gather", "Slice"):
            return None
        source = next((other for other in self._nodes if node.input[0] in other.output), None)
        if source is None or source.op_type != "Shape":
            return None
        shape = self._known_shape(self._aliases.get(source.input[0], source.input[0]))
        return None if shape is None else _range_of(source, shape)

    def _does_nothing(self, node: onnx.NodeProto) -> bool:
        match node.op_type:
            case "Identity":
                return True
            case "Dropout":
                training = self._constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.array(False)
                mask_is_read = len(node.output) > 1 and any(node.output[1] in other.input for other in self._nodes)
                return training is not None and not np.any(training) and not mask_is_read
            case "CastLike":
                source = self._types.get(node.input[0])
                return bool(source) and source == self._types.get(node.input[1])
            case "Cast":
                target = next(attribute.i for attribute in node.attribute if attribute.name == "to")
                return bool(self._types.get(node.input[0]) == target)
        return False


def _range_of(node: onnx.NodeProto, shape: Shape) -> Shape:
    limits = {attribute.name: attribute.i for attribute in node.attribute}
    return shape[limits.get("start") : limits.get("end")]


def _contributing(nodes: list[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def _with_inputs(node: onnx.NodeProto, inputs: list[str]) -> onnx.NodeProto:
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    del changed.input[:]
    changed.input.extend(inputs)
    return changed


def _dtype(code: int) -> np.dtype[Any] | None:
    """The type of that number in ONNX; None for no type and for numbers that no type has."""
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    except KeyError:
        return None


def _dimension(dim: Any) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) if dim.HasField("dim_param") and dim.dim_param else None


def _node(node: onnx.NodeProto) -> Node:
    attributes: Mapping[str, Any] = {attribute.name: _attribute(attribute) for attribute in node.attribute}
    return Node(node.op_type, node.name, tuple(node.input), tuple(node.output), attributes)


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, float):
        return _as_written(value)
    if attribute.type == onnx.AttributeProto.FLOATS:
        return tuple(_as_written(item) for item in value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if attribute.type == onnx.AttributeProto.INTS:
        return tuple(value)
    if attribute.type == onnx.AttributeProto.STRINGS:
        return tuple(item.decode("utf-8", "replace") for item in value)
    return value


def _as_written(value: float) -> float:
    """The shortest decimal that gives this float32: the file holds 0.1 rounded, the author wrote 0.1."""
    return float(str(np.float32(value)))
