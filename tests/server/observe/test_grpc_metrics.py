"""RPCs are counted under the names that every gRPC dashboard knows, and no client can make a series."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
import pytest
from voxplain.v1 import catalog_pb2, catalog_pb2_grpc
from voxplain_server.workers.job import Job, JobEvent

from tests.server.service.front import Front, case_messages, compute_for_ever, good_spec, running_front, spec_message

EXPLAIN = {"grpc_type": "bidi_stream", "grpc_service": "voxplain.v1.ExplainService", "grpc_method": "Explain"}
GET_MODEL = {"grpc_type": "unary", "grpc_service": "voxplain.v1.CatalogService", "grpc_method": "GetModel"}
UNKNOWN = {"grpc_type": "unary", "grpc_service": "unknown", "grpc_method": "unknown"}


async def counted(front: Front, name: str, labels: dict[str, str], value: float) -> None:
    """Wait until a counter has a value: the handler of a call ends after the client has its status."""
    async with asyncio.timeout(10):
        while front.metrics.registry.get_sample_value(name, labels) != value:
            await asyncio.sleep(0.02)


async def test_a_stream_is_counted_with_its_messages_and_its_status() -> None:
    async with running_front() as front:
        messages = case_messages()
        answers = await front.explain(messages=messages)
        await counted(front, "grpc_server_handled_total", EXPLAIN | {"grpc_code": "OK"}, 1)
        await counted(front, "grpc_server_started_total", EXPLAIN, 1)
        await counted(front, "grpc_server_handling_seconds_count", EXPLAIN, 1)
        await counted(front, "grpc_server_msg_sent_total", EXPLAIN, len(answers))
        await counted(front, "grpc_server_msg_received_total", EXPLAIN, 1 + len(messages))


async def test_a_refusal_is_counted_with_its_code() -> None:
    async with running_front() as front:
        spec = good_spec()
        spec.model = "jane-doe"
        await front.refusal(spec)
        await counted(front, "grpc_server_handled_total", EXPLAIN | {"grpc_code": "NOT_FOUND"}, 1)
        with pytest.raises(grpc.aio.AioRpcError):
            await catalog_pb2_grpc.CatalogServiceStub(front.channel).GetModel(catalog_pb2.GetModelRequest(name="jane-doe"))
        await counted(front, "grpc_server_handled_total", GET_MODEL | {"grpc_code": "NOT_FOUND"}, 1)
        await counted(front, "grpc_server_msg_received_total", GET_MODEL, 1)


async def test_a_cancelled_call_and_one_past_its_deadline_are_told_apart() -> None:
    async with running_front(compute_for_ever) as front:
        for timeout in (None, 0.5):
            call = front.open(timeout=timeout)
            await call.write(spec_message(good_spec()))
            for message in case_messages():
                await call.write(message)
            await front.runner.running.wait()
            front.runner.running.clear()
            if timeout is None:
                call.cancel()
                await counted(front, "grpc_server_handled_total", EXPLAIN | {"grpc_code": "CANCELLED"}, 1)
        await counted(front, "grpc_server_handled_total", EXPLAIN | {"grpc_code": "DEADLINE_EXCEEDED"}, 1)


async def test_an_unforeseen_fault_is_counted_as_internal() -> None:
    async def break_down(_: Job) -> AsyncIterator[JobEvent]:
        raise ValueError("jane doe")
        yield

    async with running_front(break_down) as front:
        await front.refusal(messages=case_messages())
        await counted(front, "grpc_server_handled_total", EXPLAIN | {"grpc_code": "INTERNAL"}, 1)


async def test_methods_that_nobody_serves_share_one_series() -> None:
    async with running_front() as front:
        for number in range(30):
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = front.channel.unary_unary(f"/patient.JaneDoe/Method{number}")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"")
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        await counted(front, "grpc_server_started_total", UNKNOWN, 30)
        await counted(front, "grpc_server_handled_total", UNKNOWN | {"grpc_code": "UNIMPLEMENTED"}, 30)
        names = [str(sample.labels) for family in front.metrics.registry.collect() for sample in family.samples]
        assert not any("JaneDoe" in each for each in names)
