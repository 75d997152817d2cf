"""Statuses of gRPC become errors of the tree, once, here."""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from voxplain.errors import ERROR_DOMAIN, ERRORS_BY_CODE, InternalFault, ServerUnavailable, Unauthenticated, VoxplainError

_DETAILS_KEY = "grpc-status-details-bin"

# What grpc.aio says, as INTERNAL, when a call ends while it writes: the server's own status is then lost.
_LOST_WHILE_WRITING = "Internal error from Core"

# What gRPC says, as UNAVAILABLE, of a handshake that this side has ended; what ends on the other side is a closed socket only.
_HANDSHAKES = {
    "CERTIFICATE_VERIFY_FAILED": "no authority that this client trusts vouches for the server: check the CA",
    "Hostname Verification Check failed": "the server's certificate is of another name: check the server's address",
    "WRONG_VERSION_NUMBER": "the server speaks no TLS on this port: check its address",
}


def translate(error: grpc.RpcError) -> VoxplainError:
    """The typed error for a failed call, of the sync or the async stack.

    A status with ErrorInfo of our domain keeps its reason, its field and its retry delay. Anything else comes from the network
    or from a proxy: a lost connection becomes ServerUnavailable with the reason CONNECTION_LOST.
    """
    code = error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else grpc.StatusCode.UNKNOWN
    text = (error.details() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None) or ""
    info, field, delay_s = _read_details(error)
    if info is not None:
        fault = ERRORS_BY_CODE.get(code, VoxplainError)
        return fault(info.reason, text or "the server gave no message", field=field, retry_after_s=delay_s)
    return _untyped(code, text, delay_s)


def _untyped(code: grpc.StatusCode, text: str, delay_s: float | None) -> VoxplainError:
    # A reset stream comes as UNAVAILABLE, INTERNAL, UNKNOWN or CANCELLED, depending on who reset it.
    lost = ("RST_STREAM", "Socket closed", _LOST_WHILE_WRITING)
    for sign, told in _HANDSHAKES.items():
        if code is grpc.StatusCode.UNAVAILABLE and sign in text:
            return Unauthenticated("TLS_FAILED", told)
    if code is grpc.StatusCode.UNAVAILABLE or any(sign in text for sign in lost):
        message = "the server cannot be reached: check its address, that it is running, and whether it asks for TLS"
        return ServerUnavailable("CONNECTION_LOST", message, retry_after_s=delay_s)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return InternalFault("NOT_A_VOXPLAIN_SERVER", "the server does not offer this call: check its address and version")
    fault = ERRORS_BY_CODE.get(code, VoxplainError)
    return fault(code.name, text or "the call failed without a message", retry_after_s=delay_s)


def _read_details(error: grpc.RpcError) -> tuple[error_details_pb2.ErrorInfo | None, str, float | None]:
    info: error_details_pb2.ErrorInfo | None = None
    field, delay_s = "", None
    for detail in _status(error).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            found = error_details_pb2.ErrorInfo()
            detail.Unpack(found)
            info = found if found.domain == ERROR_DOMAIN else info
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            field = field or ", ".join(violation.field for violation in bad.field_violations)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            delay_s = retry.retry_delay.ToNanoseconds() / 1e9
    return info, field, delay_s


def _status(error: grpc.RpcError) -> status_pb2.Status:
    """The google.rpc.Status of the trailers; empty where there is none or it cannot be read."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value if isinstance(value, bytes) else value.encode())
            except DecodeError:
                break
    return status_pb2.Status()
