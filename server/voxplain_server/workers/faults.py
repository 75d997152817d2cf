"""Faults cross processes as messages: an error becomes Failed in a worker and an error again in the front."""

from __future__ import annotations

import secrets
import sys
import traceback

from voxplain.errors import ERRORS_BY_CODE, InternalFault, InvalidTensor, LimitExceeded, VoxplainError
from voxplain.worker.v1 import worker_pb2

STDERR_MARK = "voxplain-worker: "
"""Lines of a worker's standard error that the front may log begin with this; all others it drops."""

_CODES = {code.value[0]: code for code in ERRORS_BY_CODE}


def describe_fault(error: BaseException) -> worker_pb2.Failed:
    """Tell an error to the front.

    An error that is not of our tree gets an opaque id; its type and the lines it passed, but never its text, go to standard
    error under that id.
    """
    known = error if isinstance(error, VoxplainError) else _translate(error)
    return worker_pb2.Failed(code=known.code.value[0], reason=known.reason, message=known.message, field=known.field)


def error_of(failed: worker_pb2.Failed) -> VoxplainError:
    """The error that a worker told of."""
    code = _CODES.get(failed.code)
    kind = ERRORS_BY_CODE[code] if code is not None else InternalFault
    if failed.field.startswith("tensors"):
        kind = InvalidTensor
    return kind(failed.reason, failed.message, field=failed.field)


def _translate(error: BaseException) -> VoxplainError:
    fault_id = secrets.token_hex(6)
    frames = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(traceback.extract_tb(error.__traceback__)[-6:]))
    sys.stderr.write(f"{STDERR_MARK}fault {fault_id} {type(error).__name__} at {frames}\n")
    sys.stderr.flush()
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return LimitExceeded("OUT_OF_MEMORY", "the worker has not enough memory for this; send a smaller case")
    return InternalFault("INTERNAL", f"internal error {fault_id}; the operator finds it in the logs")
