"""Faults cross processes as messages: an error becomes Failed in a worker and an error again in the front."""

from __future__ import annotations

import json
import re
import secrets
import sys
import traceback
from typing import Any

from voxplain.errors import ERRORS_BY_CODE, InternalFault, InvalidTensor, LimitExceeded, VoxplainError
from voxplain.worker.v1 import worker_pb2

STDERR_MARK = "voxplain-worker: "
"""Lines of a worker's standard error that the front may log begin with this; all others it drops."""

_EVENTS = ("worker_fault", "worker_uncaught")
_FIELDS = {"fault_id": re.compile(r"[0-9a-f]{0,12}"), "kind": re.compile(r"\w{0,80}"), "where": re.compile(r"[\w.:<> ]{0,200}")}

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
    if failed.field.startswith(("tensors", "inputs")):
        kind = InvalidTensor
    return kind(failed.reason, failed.message, field=failed.field)


def tell_uncaught(kind: type[BaseException], error: BaseException, _: object = None) -> None:
    """Tell what ends this process, by its type and the lines it passed; for sys.excepthook."""
    _tell("worker_uncaught", "", error, kind=kind)


def read_told(line: str) -> tuple[str, dict[str, str]] | None:
    """The event and the fields in a line that a worker marked; None: it is not what we write."""
    try:
        told: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(told, dict) or told.get("event") not in _EVENTS:
        return None
    fields = {name: told.get(name, "") for name in _FIELDS}
    if not all(isinstance(value, str) and _FIELDS[name].fullmatch(value) for name, value in fields.items()):
        return None
    return told["event"], fields


def _translate(error: BaseException) -> VoxplainError:
    fault_id = secrets.token_hex(6)
    _tell("worker_fault", fault_id, error, kind=type(error))
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return LimitExceeded("OUT_OF_MEMORY", "the worker has not enough memory for this; send a smaller case")
    return InternalFault("INTERNAL", f"internal error {fault_id}; the operator finds it in the logs")


def _tell(event: str, fault_id: str, error: BaseException, *, kind: type[BaseException]) -> None:
    # What imports pass through on their way says nothing.
    passed = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen importlib")
    ]
    frames = passed[-6:]
    where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))[:200]
    told = {"event": event, "fault_id": fault_id, "kind": kind.__name__, "where": where}
    sys.stderr.write(f"{STDERR_MARK}{json.dumps(told)}\n")
    sys.stderr.flush()
