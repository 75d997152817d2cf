"""Lets a call in, or ends it before a byte of its body is read."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import grpc
import grpc.aio
from voxplain.errors import InvalidSpec, PermissionDenied, Unauthenticated, VoxplainError

from voxplain_server.service.access_policy import Caller, Policy
from voxplain_server.service.call_observer import CallObserver
from voxplain_server.service.message_bound import check_message
from voxplain_server.service.status import abort_with, conceal
from voxplain_server.service.writing import write_to

_SCHEME = "bearer "
_NAMES = ("x509_subject_alternative_name", "x509_common_name")

Context = grpc.aio.ServicerContext[Any, Any]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]]


class TokenReader(Protocol):
    """Checks bearer tokens; see TokenCheck."""

    def read(self, token: str) -> tuple[str, frozenset[str]]:
        """The subject and the scopes of a token that is taken."""


class AccessGuard(grpc.aio.ServerInterceptor):
    """Stands before every method of the service port.

    gRPC reads the one message of a unary call before it calls the handler. So every method is served as a stream: who calls is
    looked at first, and the message is read after that.

    Args:
        policy: who may call what.
        tokens: checks bearer tokens, which every call must carry then; None: none is asked for.
        observer: told of refusals.
    """

    def __init__(self, policy: Policy, *, tokens: TokenReader | None, observer: CallObserver) -> None:
        self._policy = policy
        self._tokens = tokens
        self._observer = observer

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler behind the guard; None for a method that there is not, which gRPC answers UNIMPLEMENTED."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method

        async def serve(requests: object, context: Context) -> None:
            try:
                self._admit(method, context)
            except Exception as fault:
                refusal = conceal(fault, self._observer)
            else:
                await self._pass_on(handler, requests, context)
                return
            self._observer.call_refused(model="", reason=refusal.reason, code=refusal.code.name)
            await abort_with(context, refusal)

        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(serve, handler.request_deserializer, handler.response_serializer)
        return grpc.stream_stream_rpc_method_handler(serve, None, None)

    def _admit(self, method: str, context: Context) -> None:
        caller = Caller(certificates=_certificate_names(context))
        if self._tokens is not None:
            subject, scopes = self._tokens.read(_token(context))
            caller = Caller(subject, scopes, caller.certificates)
        if not self._policy.admits(method, caller):
            raise PermissionDenied("METHOD_DENIED", "no rule of this server lets this caller call this method")

    async def _pass_on(self, handler: Any, requests: object, context: Context) -> None:
        if handler.stream_stream is not None:
            answer = handler.stream_stream(requests, context)
            if inspect.isasyncgen(answer):
                async for response in answer:
                    await write_to(context, response)
            else:
                await answer
        elif handler.unary_unary is not None:
            await self._answer_one(handler, context)
        else:
            await abort_with(context, PermissionDenied("METHOD_DENIED", "this server guards no method of this kind"))

    async def _answer_one(self, handler: Any, context: Context) -> None:
        message = await context.read()
        try:
            request = _decoded(handler, message)
        except VoxplainError as error:
            refusal = error
        else:
            await write_to(context, handler.response_serializer(await handler.unary_unary(request, context)))
            return
        self._observer.call_refused(model="", reason=refusal.reason, code=refusal.code.name)
        await abort_with(context, refusal)


def _decoded(handler: Any, message: object) -> Any:
    if not isinstance(message, bytes):
        raise InvalidSpec("EMPTY_MESSAGE", "send one message")
    check_message(message)
    try:
        return handler.request_deserializer(message)
    except Exception:
        raise InvalidSpec("MALFORMED_MESSAGE", "the message is not one of this contract") from None


def _token(context: Context) -> str:
    told = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    if not told:
        raise Unauthenticated("TOKEN_MISSING", "this server asks for a bearer token: send `authorization: Bearer TOKEN`")
    value = told[0]
    if len(told) != 1 or not isinstance(value, str) or not value.lower().startswith(_SCHEME):
        raise Unauthenticated("TOKEN_INVALID", "the token is none that this server takes")
    return value[len(_SCHEME) :].strip()


def _certificate_names(context: Context) -> frozenset[str]:
    """Names in the client's certificate, which the handshake has verified; empty without one."""
    proven = context.auth_context()
    return frozenset(name.decode("utf-8", "replace") for key in _NAMES for name in proven.get(key, ()))
