"""Spans tell the stages of a call, and nothing of a patient."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import grpc.aio
import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from voxplain.errors import InvalidTensor
from voxplain.v1 import explain_pb2, method_pb2
from voxplain_server.observe.tracing import CallTracer, is_tracing_asked_for, open_tracing
from voxplain_server.workers.job import Job, JobEvent

from tests.server.service.front import (
    EXPLAIN,
    SHAPE,
    attribution,
    case_messages,
    compute_for_ever,
    good_spec,
    running_front,
    spec_message,
)

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> CallTracer:
    return open_tracing(version="1", exporter=exporter)


async def two_methods(job: Job) -> AsyncIterator[JobEvent]:
    """A whole call as the pool tells it."""
    stages = explain_pb2.Progress
    yield stages(stage=stages.STAGE_QUEUED)
    yield stages(stage=stages.STAGE_QUEUED)
    yield stages(stage=stages.STAGE_PREPARING)
    yield explain_pb2.Prediction(score=1.5)
    # Told of the first method only: the second is done before a Progress is due.
    yield stages(stage=stages.STAGE_COMPUTING, method_key=job.spec.methods[0].key)
    for method in job.spec.methods:
        yield attribution(method.key, np.zeros(SHAPE, dtype="<f4"), snapshot=True)
        yield attribution(method.key, np.zeros(SHAPE, dtype="<f4"))
        yield explain_pb2.MethodResult(
            method_key=method.key, outcome=explain_pb2.OUTCOME_COMPLETED, engine="onnxruntime-cpu", evaluations_done=7
        )
    yield explain_pb2.ExplanationRecord(explanation_id=job.explanation_id)


def spec() -> explain_pb2.ExplainSpec:
    asked = good_spec()
    asked.request_id = "jane-doe"
    asked.methods[0].key = "jane-doe-1"
    asked.methods.append(method_pb2.Method(key="jane-doe-2", occlusion=method_pb2.Occlusion()))
    return asked


def told(span: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("voxplain."): value for name, value in (span.attributes or {}).items()}


async def spans_of(exporter: InMemorySpanExporter) -> tuple[list[ReadableSpan], ReadableSpan]:
    """The spans of the stages in their order, and the span of the call, once it has ended."""
    async with asyncio.timeout(10):
        while not any(span.name == "voxplain.explain" for span in exporter.get_finished_spans()):
            await asyncio.sleep(0.02)
    *stages, call = exporter.get_finished_spans()
    return stages, call


async def test_each_stage_is_a_span_below_that_of_the_call(tracer: CallTracer, exporter: InMemorySpanExporter) -> None:
    async with running_front(two_methods, tracer=tracer) as front:
        await front.explain(spec())
        stages, call = await spans_of(exporter)
    assert [(span.name.removeprefix("voxplain."), told(span).get("method", "")) for span in stages] == [
        ("receive", ""),
        ("queue", ""),
        ("prepare", ""),
        ("compute", "gradient"),
        ("send", "gradient"),
        ("compute", "occlusion"),
        ("send", "occlusion"),
    ]
    assert call.name == "voxplain.explain"
    assert call.kind is SpanKind.SERVER
    assert call.status.status_code is StatusCode.UNSET
    assert {"model": "tiny", "methods": 2, "outcome": "completed"}.items() <= told(call).items()
    assert told(stages[0])["bytes"] > 0
    assert told(stages[4])["engine"] == "onnxruntime-cpu"
    for span in stages:
        assert span.parent is not None
        assert call.context is not None
        assert span.parent.span_id == call.context.span_id
    for before, after in pairwise(stages):
        assert before.end_time is not None
        assert after.start_time is not None
        assert before.end_time <= after.start_time
    assert [event.name for event in stages[3].events] == ["snapshot"]


async def test_the_call_joins_the_trace_that_the_client_names_and_takes_nothing_else(
    tracer: CallTracer, exporter: InMemorySpanExporter
) -> None:
    metadata = (
        ("traceparent", f"00-{TRACE}-{PARENT}-01"),
        ("tracestate", "vendor=jane-doe"),
        ("baggage", "patient=jane-doe"),
    )
    async with running_front(two_methods, tracer=tracer) as front:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = front.channel.stream_stream(EXPLAIN)
        call = method(metadata=metadata)
        await call.write(spec_message(spec()))
        for message in case_messages():
            await call.write(message)
        await call.done_writing()
        async for _ in call:
            pass
        _, span = await spans_of(exporter)
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert "jane" not in " ".join(each.to_json() for each in exporter.get_finished_spans())


async def test_a_fault_is_told_by_its_reason_and_never_by_its_text(tracer: CallTracer, exporter: InMemorySpanExporter) -> None:
    async def refuse(_: Job) -> AsyncIterator[JobEvent]:
        raise InvalidTensor("NOT_FINITE", "jane doe", field="tensors[0]")
        yield

    async with running_front(refuse, tracer=tracer) as front:
        await front.refusal(spec(), messages=case_messages())
        _, span = await spans_of(exporter)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.status.description, told(span)["reason"]) == ("NOT_FINITE", "NOT_FINITE")
    assert "jane" not in " ".join(each.to_json() for each in exporter.get_finished_spans())


async def test_spans_of_a_cancelled_call_are_closed(tracer: CallTracer, exporter: InMemorySpanExporter) -> None:
    async with running_front(compute_for_ever, tracer=tracer) as front:
        call = front.open()
        await call.write(spec_message(spec()))
        for message in case_messages():
            await call.write(message)
        await front.runner.running.wait()
        call.cancel()
        stages, span = await spans_of(exporter)
    assert told(span)["outcome"] == "cancelled"
    assert [each.name for each in stages] == ["voxplain.receive"]


def test_an_attribute_that_is_not_on_the_list_is_refused(tracer: CallTracer) -> None:
    call = tracer.begin([], explanation_id="x", model="tiny", version="1", methods=1)
    call.enter("receive")
    with pytest.raises(ValueError, match="attribute"):
        call.note(patient="jane doe")


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_opentelemetrys_own_variables_say_whether_to_trace(environ: dict[str, str], asked: bool) -> None:
    assert is_tracing_asked_for(environ) is asked


def test_the_server_does_not_import_opentelemetry_unless_asked() -> None:
    script = "import voxplain_server.app, sys; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
