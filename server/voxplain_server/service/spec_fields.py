"""Checks of a spec that need no model: counts, lengths, names, sizes, and when to stop."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from google.protobuf import duration_pb2
from voxplain import wire
from voxplain.errors import InvalidSpec, LimitExceeded, VoxplainError
from voxplain.v1 import explain_pb2, tensor_pb2

from voxplain_server.settings import Limits

MAX_REQUEST_ID = 128
MAX_METHODS = 64
MAX_SECONDS = 10 * 365 * 24 * 3600
_ENGINE = re.compile(r"[A-Za-z0-9._-]{0,64}")


def check_fields(spec: explain_pb2.ExplainSpec, limits: Limits) -> None:
    """Check what can be checked without the model.

    Raises:
        InvalidSpec: a field cannot be.
        LimitExceeded: TOO_MANY_TENSORS or CHECKPOINT_TOO_LARGE.
    """
    for fault in _faults(spec, limits):
        raise fault


def _faults(spec: explain_pb2.ExplainSpec, limits: Limits) -> Iterator[VoxplainError]:
    if len(spec.request_id) > MAX_REQUEST_ID:
        yield InvalidSpec("REQUEST_ID_TOO_LONG", f"a request_id has at most {MAX_REQUEST_ID} characters", field="request_id")
    if not spec.model:
        yield InvalidSpec("MODEL_MISSING", "name the model; ListModels tells which there are", field="model")
    if not 1 <= len(spec.methods) <= MAX_METHODS:
        yield InvalidSpec("METHOD_COUNT", f"ask for 1 to {MAX_METHODS} methods", field="methods")
    if len(spec.checkpoint) > limits.max_checkpoint_bytes:
        yield LimitExceeded("CHECKPOINT_TOO_LARGE", "no checkpoint of this server is so large", field="checkpoint")
    if spec.grid not in explain_pb2.Grid.values():
        yield InvalidSpec("UNKNOWN_ENUM_VALUE", "use one of the values that the contract names", field="grid")
    if not _ENGINE.fullmatch(spec.execution.engine):
        yield InvalidSpec("ENGINE_INVALID", "send the engine of an earlier record, or nothing", field="execution.engine")
    yield from _budget_faults(spec.budget)
    if spec.HasField("snapshot_interval"):
        yield from _duration_faults(spec.snapshot_interval, "snapshot_interval")
    if len(spec.tensors) > limits.max_tensors:
        yield LimitExceeded("TOO_MANY_TENSORS", f"a call has at most {limits.max_tensors} tensors", field="tensors")


def _budget_faults(budget: explain_pb2.Budget) -> Iterator[VoxplainError]:
    if budget.HasField("max_evaluations") and budget.max_evaluations == 0:
        yield InvalidSpec("BUDGET_INVALID", "allow at least 1 evaluation, or leave it unset", field="budget.max_evaluations")
    target = budget.target_standard_error
    if budget.HasField("target_standard_error") and not (math.isfinite(target) and target > 0):
        yield InvalidSpec("BUDGET_INVALID", "must be a finite number greater than 0", field="budget.target_standard_error")
    if budget.HasField("soft_deadline"):
        yield from _duration_faults(budget.soft_deadline, "budget.soft_deadline")


def _duration_faults(duration: duration_pb2.Duration, field: str) -> Iterator[VoxplainError]:
    seconds = duration.seconds + duration.nanos / 1e9
    if not 0 < seconds <= MAX_SECONDS or not 0 <= duration.nanos < 10**9:
        yield InvalidSpec("DURATION_INVALID", "must be a valid duration greater than 0", field=field)


def check_declared_bytes(tensors: Sequence[tensor_pb2.Tensor], limits: Limits) -> None:
    """Check what tensors with good headers take together.

    Raises:
        LimitExceeded: DECLARED_BYTES_EXCEEDED, naming the tensor that passes the limit.
    """
    declared = 0
    for index, tensor in enumerate(tensors):
        declared += wire.tensor_bytes(tensor)
        if declared > limits.max_declared_bytes:
            raise LimitExceeded(
                "DECLARED_BYTES_EXCEEDED",
                f"the tensors of a call have at most {limits.max_declared_bytes} bytes together",
                field=f"tensors[{index}].shape",
            )
