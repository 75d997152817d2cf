"""grpc.health.v1 on a port of its own, because Kubernetes' probe speaks no TLS and must not count as a call."""

from __future__ import annotations

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from voxplain.v1 import catalog_pb2, explain_pb2

SERVICES = (
    "",
    explain_pb2.DESCRIPTOR.services_by_name["ExplainService"].full_name,
    catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name,
)


class HealthServer:
    """Answers NOT_SERVING until told otherwise, and for good once it is told to stop."""

    def __init__(self) -> None:
        self._servicer = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)

    async def start(self, address: str) -> int:
        """Bind and begin to answer; returns the port."""
        port = self._server.add_insecure_port(address)
        await self._set(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.start()
        return port

    async def serving(self) -> None:
        """Answer SERVING."""
        await self._set(health_pb2.HealthCheckResponse.SERVING)

    async def stopping(self) -> None:
        """Answer NOT_SERVING from now on."""
        await self._servicer.enter_graceful_shutdown()

    async def stop(self) -> None:
        """Let the port go."""
        await self._server.stop(grace=0)

    async def _set(self, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        for service in SERVICES:
            await self._servicer.set(service, status)
