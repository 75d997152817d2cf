"""Health tells whether calls are served, on a port of its own."""

from __future__ import annotations

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from voxplain_server.service.health import SERVICES, HealthServer


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
