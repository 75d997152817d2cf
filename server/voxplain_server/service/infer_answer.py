"""What a model's file has answered becomes a message."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from voxplain.errors import LimitExceeded
from voxplain.inference import open_inference_pb2

from voxplain_server.models.signature import ELEMENTS
from voxplain_server.service.infer_message import join_response
from voxplain_server.service.infer_request import CONTENTS, CheckedInference
from voxplain_server.workers.inference import Inferred
from voxplain_server.workers.memory import map_memory


def answer_message(asked: CheckedInference, inferred: Inferred, *, request_id: str, most: int) -> bytes:
    """The ModelInferResponse. A client that sent raw contents gets raw ones; so does every client of an output in FP16.

    Args:
        asked: the request.
        inferred: the answer, in a memory file.
        request_id: to be repeated.
        most: bytes of the message.

    Raises:
        LimitExceeded: ANSWER_TOO_LARGE.
    """
    model = asked.entry.model
    response = open_inference_pb2.ModelInferResponse(model_name=model.name, model_version=model.version, id=request_id)
    if sum(tensor.size for tensor in inferred.outputs) > most:
        raise _too_large()
    raw = asked.raw or any(tensor.datatype not in CONTENTS for tensor in inferred.outputs)
    end = max((tensor.offset + tensor.size for tensor in inferred.outputs), default=0)
    held = map_memory(inferred.memory, end, writable=False)
    contents = []
    for tensor in inferred.outputs:
        told = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        part = held[tensor.offset : tensor.offset + tensor.size]
        if raw:
            contents.append(part.data)
        else:
            _type(told, part.view(ELEMENTS[tensor.datatype]))
    message = join_response(response, contents)
    if len(message) > most:
        raise _too_large()
    return message


def _type(told: open_inference_pb2.ModelInferResponse.InferOutputTensor, values: npt.NDArray[Any]) -> None:
    getattr(told.contents, CONTENTS[told.datatype]).extend(np.ravel(values).tolist())


def _too_large() -> LimitExceeded:
    return LimitExceeded(
        "ANSWER_TOO_LARGE",
        "the answer is larger than a message may be: ask for fewer outputs, or for one case",
        field="outputs",
    )
