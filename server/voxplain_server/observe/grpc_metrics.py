"""Counts RPCs under the names that every gRPC dashboard knows (the go-grpc-prometheus family)."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio

from voxplain_server.observe.metrics import Metrics

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
UNKNOWN = ("unary", "unknown", "unknown")
"""Labels of every method that the server does not serve: its name is whatever a client typed."""

Labels = tuple[str, str, str]


class GrpcMetrics(grpc.aio.ServerInterceptor):
    """Counts every RPC that reaches the server. To be the first of its interceptors, so that refusals of the others count too.

    Args:
        metrics: where to.
        methods: type ("unary", "bidi_stream"), service and method under which each full name ("/package.Service/Method") is
            counted; all others are counted as `unknown`.
    """

    def __init__(self, metrics: Metrics, methods: Mapping[str, Labels]) -> None:
        self._metrics = metrics
        self._labels = dict(methods)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler that serves the call."""
        name = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            # gRPC refuses it without a handler, before it reads a byte of the request.
            self._metrics.rpc_started.labels(*UNKNOWN).inc()
            self._metrics.rpc_handled.labels(*UNKNOWN, "UNIMPLEMENTED").inc()
            return None
        return self._wrapped(handler, self._labels.get(name, UNKNOWN))

    def _wrapped(self, handler: grpc.RpcMethodHandler[Any, Any], labels: Labels) -> grpc.RpcMethodHandler[Any, Any]:
        kinds: tuple[tuple[str, Callable[..., Any]], ...] = (
            ("unary_unary", grpc.unary_unary_rpc_method_handler),
            ("unary_stream", grpc.unary_stream_rpc_method_handler),
            ("stream_unary", grpc.stream_unary_rpc_method_handler),
            ("stream_stream", grpc.stream_stream_rpc_method_handler),
        )
        for kind, make in kinds:
            behaviour = getattr(handler, kind)
            if behaviour is not None:
                count = self._generator if inspect.isasyncgenfunction(behaviour) else self._coroutine
                wrapped: grpc.RpcMethodHandler[Any, Any] = make(
                    count(behaviour, kind, labels), handler.request_deserializer, handler.response_serializer
                )
                return wrapped
        return handler

    def _coroutine(self, behaviour: Callable[..., Awaitable[Any]], kind: str, labels: Labels) -> Callable[..., Any]:
        async def serve(request: Any, context: Any) -> Any:
            rpc = _Rpc(self._metrics, labels, context)
            try:
                answer = await behaviour(rpc.counted(request, kind), rpc)
            except BaseException as fault:
                rpc.end(fault)
                raise
            if kind.endswith("_unary"):
                rpc.sent.inc()
            rpc.end(None)
            return answer

        return serve

    def _generator(self, behaviour: Callable[..., AsyncIterator[Any]], kind: str, labels: Labels) -> Callable[..., Any]:
        async def serve(request: Any, context: Any) -> AsyncIterator[Any]:
            rpc = _Rpc(self._metrics, labels, context)
            try:
                async for answer in behaviour(rpc.counted(request, kind), rpc):
                    rpc.sent.inc()
                    yield answer
            except BaseException as fault:
                rpc.end(fault)
                raise
            rpc.end(None)

        return serve


class _Rpc:
    """One RPC: the context of its handler, which counts what passes."""

    def __init__(self, metrics: Metrics, labels: Labels, context: Any) -> None:
        self._metrics, self._labels, self._context = metrics, labels, context
        self._begin = time.monotonic()
        self.received = metrics.rpc_received.labels(*labels)
        self.sent = metrics.rpc_sent.labels(*labels)
        metrics.rpc_started.labels(*labels).inc()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        """As the context's."""
        message = await self._context.read()
        if message is not grpc.aio.EOF:
            self.received.inc()
        return message

    async def write(self, message: Any) -> None:
        """As the context's."""
        await self._context.write(message)
        self.sent.inc()

    def counted(self, request: Any, kind: str) -> Any:
        """The request, or the iterator over requests, counted as it is read."""
        if kind.startswith("unary_"):
            self.received.inc()
            return request
        return self._each(request)

    def end(self, fault: BaseException | None) -> None:
        """The handler is done."""
        self._metrics.rpc_handled.labels(*self._labels, self._code(fault)).inc()
        self._metrics.rpc_seconds.labels(*self._labels).observe(time.monotonic() - self._begin)

    async def _each(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            self.received.inc()
            yield request

    def _code(self, fault: BaseException | None) -> str:
        if isinstance(fault, asyncio.CancelledError | GeneratorExit):
            left = self._context.time_remaining()
            return "DEADLINE_EXCEEDED" if left is not None and left <= 0 else "CANCELLED"
        code = self._context.code()
        number = code.value[0] if isinstance(code, grpc.StatusCode) else int(code or 0)
        if fault is not None and number == 0:
            return "UNKNOWN"
        return _CODES.get(number, "UNKNOWN")
