"""Health tells whether calls are served, on a port of its own."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from voxplain_server.service.access_policy import METHODS
from voxplain_server.service.health import SERVICES, HealthServer, is_serving


async def test_health_follows_the_life_of_the_server() -> None:
    health = HealthServer()
    port = await health.start("127.0.0.1:0")
    assert port > 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def status(service: str) -> int:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            return int(answer.status)

        serving = health_pb2.HealthCheckResponse.SERVING
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        assert SERVICES == (
            "",
            "voxplain.v1.ExplainService",
            "voxplain.v1.CatalogService",
            "inference.GRPCInferenceService",
        )
        assert {await status(each) for each in SERVICES} == {not_serving}
        await health.serving()
        assert {await status(each) for each in SERVICES} == {serving}
        await health.stopping()
        assert {await status(each) for each in SERVICES} == {not_serving}
        await health.serving()
        assert {await status(each) for each in SERVICES} == {not_serving}
    await health.stop()


async def test_the_health_port_answers_nothing_else() -> None:
    server = HealthServer()
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method in METHODS:
            called: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await called(b"", timeout=10)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop()


async def test_health_is_not_serving_while_the_compute_fails_and_serving_again_when_it_works() -> None:
    told: list[bool] = []
    health = HealthServer(told.append)
    port = await health.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest())

        async def next_status() -> str:
            async with asyncio.timeout(10):
                answer = await watching.read()
            return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

        assert await next_status() == "NOT_SERVING"
        await health.serving()
        assert await next_status() == "SERVING"
        health.compute_failing(True)
        assert await next_status() == "NOT_SERVING"
        health.compute_failing(False)
        assert await next_status() == "SERVING"
        await health.stopping()
        assert await next_status() == "NOT_SERVING"
        health.compute_failing(False)
        await asyncio.sleep(0)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        watching.cancel()
    await health.stop()
    assert told == [True, False, True, False]


async def test_a_compute_that_fails_before_the_start_is_over_keeps_health_from_serving() -> None:
    told: list[bool] = []
    health = HealthServer(told.append)
    await health.start("127.0.0.1:0")
    health.compute_failing(True)
    await health.serving()
    await asyncio.sleep(0)
    await health.stop()
    assert told == []


async def test_the_image_asks_whether_the_server_on_its_host_serves() -> None:
    server = HealthServer()
    environ = {"VOXPLAIN_HEALTH_PORT": str(await server.start("127.0.0.1:0"))}
    assert not await asyncio.to_thread(is_serving, environ)
    await server.serving()
    assert await asyncio.to_thread(is_serving, environ)
    await server.stopping()
    assert not await asyncio.to_thread(is_serving, environ)
    await server.stop()
    assert not await asyncio.to_thread(is_serving, environ)
