"""Raw tensors through a model's file, in a compute process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from voxplain.worker.v1 import worker_pb2

from voxplain_server.engines.file_session import FileSession
from voxplain_server.models.signature import ELEMENTS, datatype_of
from voxplain_server.workers.memory import create_memory, map_memory

_ALIGNMENT = 64


def infer(asked: worker_pb2.Infer, memory: int, file: FileSession) -> tuple[worker_pb2.Inferred, int]:
    """One pass over tensors in a memory file.

    Returns:
        What is told, and the descriptor of a new memory file with the outputs, which is the caller's to close.

    Raises:
        voxplain.errors.VoxplainError: as FileSession.run.
    """
    began_at = time.monotonic()
    end = max((tensor.offset + tensor.size for tensor in asked.inputs), default=0)
    held = map_memory(memory, end, writable=False)
    answers = file.run({tensor.name: _array(held, tensor) for tensor in asked.inputs}, asked.outputs)
    told, descriptor = _laid_out(asked.outputs, answers)
    told.seconds = time.monotonic() - began_at
    return told, descriptor


def _array(held: npt.NDArray[np.uint8], tensor: worker_pb2.RawTensor) -> npt.NDArray[Any]:
    content = held[tensor.offset : tensor.offset + tensor.size]
    return content.view(ELEMENTS[tensor.datatype]).reshape(tuple(tensor.shape))


def _laid_out(names: Sequence[str], answers: Sequence[npt.NDArray[Any]]) -> tuple[worker_pb2.Inferred, int]:
    told, end = worker_pb2.Inferred(), 0
    for name, answer in zip(names, answers, strict=True):
        told.outputs.add(name=name, datatype=datatype_of(answer.dtype), shape=answer.shape, offset=end, size=answer.nbytes)
        end += -(-answer.nbytes // _ALIGNMENT) * _ALIGNMENT
    descriptor = create_memory(end)
    held = map_memory(descriptor, end, writable=True)
    for tensor, answer in zip(told.outputs, answers, strict=True):
        held[tensor.offset : tensor.offset + tensor.size] = np.ascontiguousarray(answer).reshape(-1).view(np.uint8)
    return told, descriptor
