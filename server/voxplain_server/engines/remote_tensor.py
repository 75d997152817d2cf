"""Arrays to messages of the Open Inference Protocol and back, every size checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from voxplain.errors import UnsupportedByModel
from voxplain.inference import open_inference_pb2

_NAMES: Mapping[str, str] = {"float32": "FP32", "float16": "FP16"}
_READ: Mapping[str, str] = {"FP32": "<f4", "FP16": "<f2", "FP64": "<f8"}


def write_request(
    model: str, version: str, tensors: Mapping[str, npt.NDArray[Any]], *, output: str
) -> open_inference_pb2.ModelInferRequest:
    """Ask for one output of a model; the elements of the tensors are copied."""
    request = open_inference_pb2.ModelInferRequest(
        model_name=model,
        model_version=version,
        outputs=[open_inference_pb2.ModelInferRequest.InferRequestedOutputTensor(name=output)],
    )
    for name, array in tensors.items():
        request.inputs.add(name=name, datatype=_NAMES[array.dtype.name], shape=array.shape)
        request.raw_input_contents.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return request


def read_output(response: open_inference_pb2.ModelInferResponse, name: str) -> npt.NDArray[np.float32]:
    """The output of a name, as float32.

    Raises:
        UnsupportedByModel: REMOTE_ANSWER_INVALID.
    """
    place = next((place for place, each in enumerate(response.outputs) if each.name == name), None)
    if place is None:
        raise _invalid("it lacks the output that is explained: name one in voxplain.remote.output")
    tensor = response.outputs[place]
    if tensor.datatype not in _READ:
        raise _invalid("it does not hold FP32, FP16 or FP64")
    numbers = _numbers(tensor.shape)
    if response.raw_output_contents:
        kind = np.dtype(_READ[tensor.datatype])
        if len(response.raw_output_contents) <= place or len(response.raw_output_contents[place]) != numbers * kind.itemsize:
            raise _invalid("its bytes are not those of its shape")
        flat = np.frombuffer(response.raw_output_contents[place], dtype=kind)
    else:
        typed: Sequence[float] = tensor.contents.fp64_contents if tensor.datatype == "FP64" else tensor.contents.fp32_contents
        if len(typed) != numbers:
            raise _invalid("its elements are not those of its shape")
        flat = np.array(typed, dtype=np.float32)
    return flat.astype(np.float32).reshape(tuple(tensor.shape))


def _numbers(shape: Sequence[int]) -> int:
    if not all(size >= 0 for size in shape):
        raise _invalid("its shape is not known")
    return math.prod(shape)


def _invalid(what: str) -> UnsupportedByModel:
    return UnsupportedByModel("REMOTE_ANSWER_INVALID", f"the remote server's answer cannot be read: {what}")
