"""Health tells whether calls are served, on a port of its own."""

from __future__ import annotations

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from voxplain_server.service.health import SERVICES, HealthServer
from voxplain_server.service.policy import METHODS


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
        assert SERVICES == ("", "voxplain.v1.ExplainService", "voxplain.v1.CatalogService")
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
