"""A model's file that is a formula, so that the front can be tested without a worker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
from voxplain.worker.v1 import worker_pb2
from voxplain_server.models.signature import ELEMENTS, FREE, Signature, TensorFace
from voxplain_server.workers.inference import Inference, Inferred
from voxplain_server.workers.memory import memory_of

SIGNATURE = Signature(
    inputs=(TensorFace("image", "FP32", (FREE, 2, 6, 5, 4)),),
    outputs=(TensorFace("logits", "FP32", (FREE, 2)), TensorFace("half", "FP16", (FREE, 2))),
)


def logits(image: np.ndarray) -> np.ndarray:
    """(batch, 2): the sum of each modality."""
    return np.asarray(image.reshape(len(image), 2, -1).sum(axis=2), dtype="<f4")


@dataclass
class FakePredictor:
    """Answers with `logits`, or behaves as it is told before that.

    Attributes:
        before: awaited before each answer.
        asked: what came in.
        cancelled: inferences that were left in the middle.
    """

    before: Callable[[Inference], Awaitable[None]] | None = None
    asked: list[Inference] = field(default_factory=list)
    running: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: int = 0

    async def infer(self, asked: Inference) -> Inferred:
        """As Predictor.infer."""
        self.asked.append(asked)
        self.running.set()
        try:
            if self.before is not None:
                await self.before(asked)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        (tensor,) = asked.inputs
        content = os.pread(asked.memory, tensor.size, tensor.offset)
        answer = logits(np.frombuffer(content, dtype="<f4").reshape(tuple(tensor.shape)))
        outputs, whole = [], b""
        for name in asked.outputs:
            datatype = {face.name: face.datatype for face in SIGNATURE.outputs}[name]
            part = answer.astype(ELEMENTS[datatype]).tobytes()
            outputs.append(
                worker_pb2.RawTensor(name=name, datatype=datatype, shape=answer.shape, offset=len(whole), size=len(part))
            )
            whole += part + bytes(-len(part) % 64)
        return Inferred(tuple(outputs), memory_of(np.frombuffer(whole, dtype=np.uint8)), 0.01)
