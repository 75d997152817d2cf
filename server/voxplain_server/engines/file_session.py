"""A model's file run as it is by ONNX Runtime: its own inputs, its own outputs, nothing prepared and nothing explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx
import onnxruntime
from voxplain.errors import Cancelled, InvalidTensor, LimitExceeded

from voxplain_server.engines.onnx_engine import Device, open_session

_NO_MEMORY = ("bad_alloc", "allocate memory", "out of memory", "BFCArena")


class FileSession:
    """Answers raw tensors.

    The session of OnnxEngine does not serve for it: that one ends at the score, which may lie before the file's outputs.

    Args:
        proto: the ONNX file, weights inside.
        threads: compute threads.
        device: where it runs.
    """

    def __init__(self, proto: onnx.ModelProto, *, threads: int, device: Device = "cpu") -> None:
        # Without an arena: what a pass needed is given back after it, whatever shapes clients send.
        self._session = open_session(proto, threads=threads, device=device, arena=False)
        self._options = onnxruntime.RunOptions()
        self._interrupted = False

    def begin(self) -> None:
        """Forget an earlier interruption; called before a run is announced to whoever may interrupt it."""
        self._options = onnxruntime.RunOptions()
        self._interrupted = False

    def run(self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]) -> list[npt.NDArray[Any]]:
        """One pass.

        Args:
            feeds: every input by name, in the file's element types.
            outputs: names of what is wanted.

        Raises:
            InvalidTensor: INPUTS_NOT_RUN; the network cannot run on inputs of these shapes together.
            LimitExceeded: OUT_OF_MEMORY.
            Cancelled: `interrupt` was called.
        """
        try:
            return list(self._session.run(list(outputs), dict(feeds), self._options))
        except Exception as fault:
            if self._interrupted:
                raise Cancelled("CANCELLED", "the client left") from None
            # ONNX Runtime has one kind of exception for both, and its text may quote the file.
            if any(words in str(fault) for words in _NO_MEMORY):
                raise LimitExceeded("OUT_OF_MEMORY", "the worker has not enough memory for this; send less") from None
            raise InvalidTensor(
                "INPUTS_NOT_RUN",
                "the model cannot run on inputs of these shapes: axes of any size may have to fit one another, and networks "
                "that pool need a least size",
                field="inputs",
            ) from None

    def interrupt(self) -> None:
        """Stop the pass that is running or about to run, from another thread."""
        self._interrupted = True
        self._options.terminate = True
