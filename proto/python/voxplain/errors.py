"""Every fault that a caller can meet, as one tree.

    VoxplainError                     code                  when
    ├── InvalidSpec                   INVALID_ARGUMENT      the spec is wrong, seen before a byte is reserved
    ├── InvalidTensor                 INVALID_ARGUMENT      chunks or values of a tensor are wrong
    ├── ChecksumMismatch              DATA_LOSS             a chunk was changed on its way
    ├── ModelNotFound                 NOT_FOUND             no such model or version
    ├── UnsupportedByModel            FAILED_PRECONDITION   this model cannot do what was asked
    ├── LimitExceeded                 RESOURCE_EXHAUSTED    a limit or the queue; may carry a retry delay
    ├── CheckpointRefused             ABORTED               the checkpoint does not belong to this request
    ├── DeadlinePassed                DEADLINE_EXCEEDED     the client's deadline
    ├── Cancelled                     CANCELLED             the client left
    ├── Unauthenticated               UNAUTHENTICATED       no token, or none that this server takes
    ├── PermissionDenied              PERMISSION_DENIED     who calls is known, and may not call this method
    ├── ServerUnavailable             UNAVAILABLE           shutting down, or workers lost; try again
    └── InternalFault                 INTERNAL              ours; carries an opaque id only

A message names the field and the remedy. It never holds input text, a path or a value of a tensor, because messages reach
logs and other people's screens.
"""

from __future__ import annotations

from typing import ClassVar

import grpc

ERROR_DOMAIN = "voxplain"


class VoxplainError(Exception):
    """A fault with a gRPC code, a stable reason and, where there is one, the field at fault.

    Args:
        reason: UPPER_SNAKE_CASE code that programs may switch on; it never changes its meaning.
        message: plain words for people: what is wrong and what to do.
        field: path of the field in the request, for example `tensors[2].shape`; empty where no field is at fault.
        retry_after_s: seconds after which trying again may help; None where it does not.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(self, reason: str, message: str, *, field: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        """Field, message and reason: all that whoever reads a traceback needs."""
        return f"{self.field}: {self.message} ({self.reason})" if self.field else f"{self.message} ({self.reason})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("errors cross processes as protobuf messages, not as pickles")


class InvalidSpec(VoxplainError):
    """The spec is wrong; nothing was reserved."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class InvalidTensor(VoxplainError):
    """Chunks or values of a tensor are wrong; everything reserved was released."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class ChecksumMismatch(VoxplainError):
    """The bytes of a chunk are not those that the client summed."""

    code = grpc.StatusCode.DATA_LOSS


class ModelNotFound(VoxplainError):
    """No such model or version."""

    code = grpc.StatusCode.NOT_FOUND


class UnsupportedByModel(VoxplainError):
    """The model cannot do what was asked."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class LimitExceeded(VoxplainError):
    """A limit of the server, or its queue is full."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class CheckpointRefused(VoxplainError):
    """The checkpoint was not made by this server for this request."""

    code = grpc.StatusCode.ABORTED


class DeadlinePassed(VoxplainError):
    """The client's deadline passed."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Cancelled(VoxplainError):
    """The client cancelled or went away."""

    code = grpc.StatusCode.CANCELLED


class Unauthenticated(VoxplainError):
    """The call carries no token that this server takes; nothing of its body was read."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(VoxplainError):
    """No rule of the server's policy lets this caller call this method; nothing of the body was read."""

    code = grpc.StatusCode.PERMISSION_DENIED


class ServerUnavailable(VoxplainError):
    """The server is shutting down or lost its workers; trying again helps."""

    code = grpc.StatusCode.UNAVAILABLE


class InternalFault(VoxplainError):
    """A fault of the server; `message` holds an opaque id that its operator finds in the logs."""

    code = grpc.StatusCode.INTERNAL


ERRORS_BY_CODE: dict[grpc.StatusCode, type[VoxplainError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidSpec,
    grpc.StatusCode.DATA_LOSS: ChecksumMismatch,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.FAILED_PRECONDITION: UnsupportedByModel,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitExceeded,
    grpc.StatusCode.ABORTED: CheckpointRefused,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlinePassed,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAVAILABLE: ServerUnavailable,
    grpc.StatusCode.INTERNAL: InternalFault,
}
"""What a client raises for a status."""
