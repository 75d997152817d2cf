"""grpc.health.v1 on a port of its own, because Kubernetes' probe speaks no TLS and must not count as a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from voxplain.inference import open_inference_pb2
from voxplain.v1 import catalog_pb2, explain_pb2

SERVICES = (
    "",
    explain_pb2.DESCRIPTOR.services_by_name["ExplainService"].full_name,
    catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name,
    open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name,
)

DEFAULT_PORT = 50052
_ASK_SECONDS = 3.0


def is_serving(environ: Mapping[str, str]) -> bool:
    """Ask the server on this host whose health port VOXPLAIN_HEALTH_PORT names."""
    port = environ.get("VOXPLAIN_HEALTH_PORT") or DEFAULT_PORT
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            told = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_ASK_SECONDS)
        except grpc.RpcError:
            return False
    return bool(told.status == health_pb2.HealthCheckResponse.SERVING)


class HealthServer:
    """Answers NOT_SERVING until told otherwise, while the compute fails, and for good once it is told to stop.

    Args:
        on_change: called with what it answers from now on: True for SERVING.
    """

    def __init__(self, on_change: Callable[[bool], None] = lambda _: None) -> None:
        self._servicer = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        self._on_change = on_change
        self._started = self._failing = self._stopping = self._told = False
        self._changes: set[asyncio.Task[None]] = set()

    @property
    def is_serving(self) -> bool:
        """What it answers."""
        return self._told

    async def start(self, address: str) -> int:
        """Bind and begin to answer; returns the port."""
        port = self._server.add_insecure_port(address)
        await self._answer()
        await self._server.start()
        return port

    async def serving(self) -> None:
        """Answer SERVING, unless the compute fails."""
        self._started = True
        await self._answer()

    def compute_failing(self, failing: bool) -> None:
        """The compute as a whole begins or ceases to fail: who asks for readiness is to send calls elsewhere meanwhile."""
        self._failing = failing
        change = asyncio.create_task(self._answer())
        self._changes.add(change)
        change.add_done_callback(self._changes.discard)

    async def stopping(self) -> None:
        """Answer NOT_SERVING from now on."""
        self._stopping = True
        await self._servicer.enter_graceful_shutdown()
        await self._answer()

    async def stop(self) -> None:
        """Let the port go."""
        await self._server.stop(grace=0)

    async def _answer(self) -> None:
        serving = self._started and not self._failing and not self._stopping
        answer = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in SERVICES:
            await self._servicer.set(service, answer)
        if serving != self._told:
            self._told = serving
            self._on_change(serving)
