"""From faults to gRPC statuses: typed details for ours, an opaque id for everything else."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from voxplain.errors import ERROR_DOMAIN, InternalFault, VoxplainError

from voxplain_server.service.call_observer import CallObserver


def status_of(error: VoxplainError) -> status_pb2.Status:
    """The google.rpc.Status of a fault: ErrorInfo, BadRequest where a field is at fault, RetryInfo where waiting helps."""
    details = [_packed(error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN))]
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message, reason=error.reason
        )
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    number: int = error.code.value[0]
    return status_pb2.Status(code=number, message=error.message, details=details)


def conceal(fault: BaseException, observer: CallObserver, *, explanation_id: str = "") -> VoxplainError:
    """What may be told of an exception: a VoxplainError as it is, any other only as an id that the operator's log knows.

    The text of a foreign exception may quote a tensor or a path, so neither the client nor the log gets it.
    """
    if isinstance(fault, VoxplainError):
        return fault
    fault_id = observer.foreign_fault(fault, explanation_id=explanation_id)
    return InternalFault("INTERNAL_ERROR", f"internal error {fault_id}")


async def abort_with(context: grpc.aio.ServicerContext[Any, Any], error: VoxplainError) -> NoReturn:
    """End a call with a fault. Always raises, as grpc.aio's abort does."""
    # The frames that it passed hold messages and maps; frames and fault would hold each other until the next full collection.
    error.__traceback__ = error.__context__ = error.__cause__ = None
    await context.abort_with_status(rpc_status.to_status(status_of(error)))


def _packed(detail: object) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)  # type: ignore[arg-type]
    return packed
