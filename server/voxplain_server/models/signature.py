"""What a model's file reads and answers, tensor by tensor, in the words of the Open Inference Protocol.

Light: the front imports this, so neither torch nor onnxruntime may be imported here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

ELEMENTS: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Element types of the protocol that have a fixed size."""
FREE = -1
"""Stands in a shape for an axis of any size."""

_NAMES = {element: name for name, element in ELEMENTS.items()}


@dataclass(frozen=True, slots=True)
class TensorFace:
    """One input or output of a model's file.

    Attributes:
        name: as the file has it.
        datatype: one of ELEMENTS.
        shape: one size for each axis, FREE for one of any size; None: not even the rank is known.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] | None

    def reads(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape may be given to it."""
        if self.shape is None:
            return all(size > 0 for size in shape)
        return len(shape) == len(self.shape) and all(
            size > 0 and own in (FREE, size) for own, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """All inputs and outputs of a model's file, in its order.

    Outputs whose elements have no fixed size, such as texts and sequences, are left out.
    """

    inputs: tuple[TensorFace, ...] = ()
    outputs: tuple[TensorFace, ...] = ()


def datatype_of(element: np.dtype[np.generic]) -> str:
    """The protocol's name of an element type; empty where it has none."""
    return _NAMES.get(element.newbyteorder("<"), "")


def tensor_bytes(datatype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor."""
    return math.prod(shape) * ELEMENTS[datatype].itemsize
