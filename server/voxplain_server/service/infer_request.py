"""What a ModelInfer request shows is checked here, before a worker is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from voxplain.errors import InvalidSpec, InvalidTensor, UnsupportedByModel
from voxplain.inference import open_inference_pb2
from voxplain.worker.v1 import worker_pb2

from voxplain_server.models.signature import ELEMENTS, TensorFace, tensor_bytes
from voxplain_server.workers.catalog import Catalog, CatalogEntry

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
"""Field of InferTensorContents for each element type that has one."""

MAX_AXES = 16
_ALIGNMENT = 64
_REQUEST_REFUSED = ("sequence_id", "sequence_start", "sequence_end")
_INPUT_REFUSED = ("shared_memory_region",)
_OUTPUT_REFUSED = ("shared_memory_region", "classification")
"""Parameters that would change the answer and are not known here; all others are hints, and let pass."""

Input = open_inference_pb2.ModelInferRequest.InferInputTensor
Parameters = Mapping[str, open_inference_pb2.InferParameter]


@dataclass(frozen=True, slots=True, eq=False)
class CheckedInference:
    """A request that will be served.

    Attributes:
        entry: the model.
        inputs: in the order of the request, each with its place in a memory file.
        contents: their bytes, in the same order; None for one whose numbers stand in the request.
        outputs: names of what is wanted.
        raw: whether the client speaks in raw contents.
    """

    entry: CatalogEntry
    inputs: tuple[worker_pb2.RawTensor, ...]
    contents: tuple[memoryview | None, ...]
    outputs: tuple[str, ...]
    raw: bool

    @property
    def total_bytes(self) -> int:
        """Bytes of the memory file."""
        return max((tensor.offset + tensor.size for tensor in self.inputs), default=0)


def check_request(
    request: open_inference_pb2.ModelInferRequest, raw: Sequence[memoryview], catalog: Catalog
) -> CheckedInference:
    """Check a request against the signature of its model.

    Args:
        request: without its raw contents.
        raw: those.
        catalog: the models.

    Raises:
        InvalidSpec: INPUT_UNKNOWN, INPUT_TWICE, INPUT_MISSING, OUTPUT_UNKNOWN, OUTPUT_TWICE or PARAMETER_UNSUPPORTED.
        InvalidTensor: DATATYPE_MISMATCH, SHAPE_MISMATCH, CONTENTS_MISSING, CONTENTS_MIXED or CONTENTS_SIZE.
        ModelNotFound: no such model or version.
        UnsupportedByModel: NO_MODEL_FILE.
    """
    entry = catalog.find(request.model_name, request.model_version)
    signature = entry.traits.signature
    if not signature.inputs or not signature.outputs:
        raise UnsupportedByModel("NO_MODEL_FILE", "this model has no file of its own that could answer", field="model_name")
    _refuse(request.parameters, _REQUEST_REFUSED, "parameters")
    if raw and len(raw) != len(request.inputs):
        raise InvalidTensor("CONTENTS_MISSING", "give raw contents for every input, or for none", field="raw_input_contents")
    faces = {face.name: face for face in signature.inputs}
    inputs: list[worker_pb2.RawTensor] = []
    end = 0
    for index, tensor in enumerate(request.inputs):
        size = _check_input(tensor, faces, raw[index] if raw else None, f"inputs[{index}]")
        if any(each.name == tensor.name for each in inputs):
            raise InvalidSpec("INPUT_TWICE", "give every input once", field=f"inputs[{index}].name")
        inputs.append(
            worker_pb2.RawTensor(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, offset=end, size=size)
        )
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    if len(inputs) != len(faces):
        raise InvalidSpec("INPUT_MISSING", "give every input of the model; ModelMetadata names them", field="inputs")
    return CheckedInference(
        entry=entry,
        inputs=tuple(inputs),
        contents=tuple(raw) or (None,) * len(inputs),
        outputs=_outputs(request, tuple(face.name for face in signature.outputs)),
        raw=bool(raw),
    )


def typed_bytes(tensor: Input, index: int) -> memoryview:
    """The bytes of an input whose numbers stand in the request.

    Raises:
        InvalidTensor: CONTENTS_VALUE; a number does not fit the element type.
    """
    numbers = getattr(tensor.contents, CONTENTS[tensor.datatype])
    try:
        return np.array(numbers, dtype=ELEMENTS[tensor.datatype]).data.cast("B")
    except OverflowError:
        raise InvalidTensor(
            "CONTENTS_VALUE", "a number does not fit the element type", field=f"inputs[{index}].contents"
        ) from None


def _check_input(tensor: Input, faces: Mapping[str, TensorFace], raw: memoryview | None, field: str) -> int:
    """Bytes of an input that is as its model reads it."""
    face = faces.get(tensor.name)
    if face is None:
        raise InvalidSpec("INPUT_UNKNOWN", "the model has no such input; ModelMetadata names them", field=f"{field}.name")
    _refuse(tensor.parameters, _INPUT_REFUSED, f"{field}.parameters")
    if tensor.datatype != face.datatype:
        raise InvalidTensor("DATATYPE_MISMATCH", f"this input holds {face.datatype}", field=f"{field}.datatype")
    shape = tuple(tensor.shape) if len(tensor.shape) <= MAX_AXES else ()
    if not face.reads(shape):
        read = "any shape without an axis of 0" if face.shape is None else f"the shape {list(face.shape)}, -1 for any size"
        raise InvalidTensor("SHAPE_MISMATCH", f"this input reads {read}", field=f"{field}.shape")
    size = tensor_bytes(face.datatype, shape)
    if raw is not None:
        if tensor.HasField("contents"):
            raise InvalidTensor("CONTENTS_MIXED", "give raw contents or typed ones, not both", field=f"{field}.contents")
        if raw.nbytes != size:
            told = f"this shape and element type take {size} bytes"
            raise InvalidTensor("CONTENTS_SIZE", told, field=f"raw_input_contents[{field[7:-1]}]")
        return size
    _check_typed(tensor, size // ELEMENTS[face.datatype].itemsize, field)
    return size


def _check_typed(tensor: Input, elements: int, field: str) -> None:
    holds = CONTENTS.get(tensor.datatype)
    if holds is None:
        told = f"{tensor.datatype} has no typed contents: send raw_input_contents"
        raise InvalidTensor("CONTENTS_MISSING", told, field=f"{field}.contents")
    if any(own.name != holds for own, _ in tensor.contents.ListFields()):
        told = f"{tensor.datatype} travels in {holds} alone"
        raise InvalidTensor("CONTENTS_MIXED", told, field=f"{field}.contents")
    if len(getattr(tensor.contents, holds)) != elements:
        told = f"this shape takes {elements} numbers in {holds}"
        raise InvalidTensor("CONTENTS_SIZE", told, field=f"{field}.contents.{holds}")


def _outputs(request: open_inference_pb2.ModelInferRequest, known: tuple[str, ...]) -> tuple[str, ...]:
    for index, wanted in enumerate(request.outputs):
        field = f"outputs[{index}]"
        if wanted.name not in known:
            told = "the model has no such output; ModelMetadata names them"
            raise InvalidSpec("OUTPUT_UNKNOWN", told, field=f"{field}.name")
        _refuse(wanted.parameters, _OUTPUT_REFUSED, f"{field}.parameters")
    names = tuple(wanted.name for wanted in request.outputs)
    if len(set(names)) != len(names):
        raise InvalidSpec("OUTPUT_TWICE", "ask for every output once", field="outputs")
    return names or known


def _refuse(parameters: Parameters, unsupported: Sequence[str], field: str) -> None:
    for name in unsupported:
        if name in parameters:
            raise InvalidSpec("PARAMETER_UNSUPPORTED", f"this server does not know the parameter {name}", field=field)
