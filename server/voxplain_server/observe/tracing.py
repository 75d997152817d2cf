"""OpenTelemetry spans of a call and its stages, where the extra `tracing` is installed and an exporter is named.

Settings are OpenTelemetry's own variables: without OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT), or with
OTEL_SDK_DISABLED=true, nothing is traced and nothing is imported. Attributes are of an allow-list; of what a client sent only
the ids in `traceparent` are taken: `tracestate` and `baggage` are free text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

ATTRIBUTES: dict[str, type] = {
    "explanation_id": str,
    "model": str,
    "version": str,
    "methods": int,
    "method": str,
    "outcome": str,
    "reason": str,
    "engine": str,
    "bytes": int,
    "evaluations": int,
    "evaluations_saved": int,
    "compute_seconds": float,
}
"""Every attribute that a span may have, and its type."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def is_tracing_asked_for(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables name where spans go."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return False
    return any(environ.get(name) for name in _ENDPOINTS)


def open_tracing(*, version: str, exporter: SpanExporter | None = None) -> CallTracer:
    """Begin to trace.

    Args:
        version: the server's.
        exporter: where spans go; None: by OTLP over gRPC, as OpenTelemetry's variables say.

    Raises:
        ImportError: the extra `tracing` is not installed.
    """
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over these.
    named = Resource({"service.name": "voxplain", "service.version": version})
    provider = TracerProvider(resource=named.merge(_resource_of_environment()))
    if exporter is None:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    else:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    return CallTracer(provider.get_tracer("voxplain", version), provider.shutdown)


def _resource_of_environment() -> Resource:
    from opentelemetry.sdk.resources import OTELResourceDetector

    return OTELResourceDetector().detect()


class CallTracer:
    """Makes the spans of calls (a voxplain_server.service.spans.Tracer).

    Args:
        tracer: OpenTelemetry's.
        shut_down: sends what waits.
    """

    def __init__(self, tracer: Tracer, shut_down: Callable[[], None]) -> None:
        self._tracer = tracer
        self._shut_down = shut_down

    def begin(
        self, metadata: Iterable[tuple[str, str | bytes]], *, explanation_id: str, model: str, version: str, methods: int
    ) -> CallTrace:
        """Open the span of a call, as a child of the client's where its metadata names one."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parents = [value for name, value in metadata if name == "traceparent" and isinstance(value, str)]
        carrier = {"traceparent": parents[0]} if len(parents) == 1 else {}
        span = self._tracer.start_span(
            "voxplain.explain", context=TraceContextTextMapPropagator().extract(carrier), kind=SpanKind.SERVER
        )
        _describe(span, {"explanation_id": explanation_id, "model": model, "version": version, "methods": methods})
        return CallTrace(self._tracer, span)

    def close(self) -> None:
        """Send what waits, and trace no more."""
        self._shut_down()


class CallTrace:
    """The spans of one call: its own, and below it one for each stage (a voxplain_server.service.spans.CallSpans)."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._stage: Span | None = None
        self._name = ("", "")

    def enter(self, stage: str, *, method: str = "") -> None:
        """Leave the stage under way and enter another."""
        from opentelemetry.trace import set_span_in_context

        if self._name == (stage, method):
            return
        self._leave()
        self._name = stage, method
        self._stage = self._tracer.start_span(f"voxplain.{stage}", context=set_span_in_context(self._span))
        if method:
            _describe(self._stage, {"method": method})

    def note(self, **attributes: str | int | float) -> None:
        """Facts about the stage under way."""
        if self._stage is not None:
            _describe(self._stage, attributes)

    def happened(self, event: str) -> None:
        """Something happened within the stage under way."""
        if self._stage is not None:
            self._stage.add_event(event)

    def end(self, *, outcome: str, reason: str) -> None:
        """The call is over. No exception is recorded: its text is not ours to tell."""
        from opentelemetry.trace import StatusCode

        self._leave()
        _describe(self._span, {"outcome": outcome, "reason": reason})
        if outcome == "failed":
            self._span.set_status(StatusCode.ERROR, reason)
        self._span.end()

    def _leave(self) -> None:
        if self._stage is not None:
            self._stage.end()
        self._stage = None


def _describe(span: Span, attributes: Mapping[str, str | int | float]) -> None:
    for name, value in attributes.items():
        if type(value) is not ATTRIBUTES.get(name):
            raise ValueError(f"{name} is not an attribute of spans, or has another type")
        span.set_attribute(f"voxplain.{name}", value)
