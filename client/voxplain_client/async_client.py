"""The client for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self, Unpack

import grpc
from voxplain.v1 import catalog_pb2, catalog_pb2_grpc

from voxplain_client.access import Access
from voxplain_client.async_explanation import AsyncExplanation
from voxplain_client.connection import CHANNEL_OPTIONS, EXPLAIN_PATH, plaintext_options, server_address
from voxplain_client.conversation import Conversation
from voxplain_client.faults import translate
from voxplain_client.request import ExplainOptions, Request, build_request
from voxplain_client.retry_policy import RetryPolicy


class AsyncClient:
    """As Client, for asyncio. Make it inside a running event loop.

    Args:
        server: HOST:PORT. Default: the variable VOXPLAIN_SERVER, else 127.0.0.1:50051.
        access: TLS and a bearer token; None: plaintext, nobody in particular.
        credentials: those of gRPC, in the place of the files of `access`.
        policy: when broken calls are made again.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        access: Access | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        address = server_address(server)
        self._access = access or Access()
        credentials = credentials or self._access.credentials()
        self._access.check(address, encrypted=credentials is not None)
        self._policy = policy or RetryPolicy()
        self._channel = (
            grpc.aio.insecure_channel(address, options=plaintext_options(address))
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
        )
        self._explain: Any = self._channel.stream_stream(EXPLAIN_PATH, request_serializer=None, response_deserializer=None)
        self._catalog = catalog_pb2_grpc.CatalogServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; running explanations are cancelled."""
        await self._channel.close()

    def explain(
        self, *, timeout_s: float | None = None, keep_maps: bool = True, **options: Unpack[ExplainOptions]
    ) -> AsyncExplanation:
        """Start an explanation; as Client.explain."""
        return self.send(build_request(options), timeout_s=timeout_s, keep_maps=keep_maps)

    def send(self, request: Request, *, timeout_s: float | None = None, keep_maps: bool = True) -> AsyncExplanation:
        """Start an explanation from a request that was built before."""
        conversation = Conversation(request, policy=self._policy, keep_maps=keep_maps)
        return AsyncExplanation(conversation, self._dial, timeout_s=timeout_s)

    async def estimate(self, **options: Unpack[ExplainOptions]) -> catalog_pb2.EstimateExplanationResponse:
        """What an explanation would cost; as Client.estimate."""
        request = catalog_pb2.EstimateExplanationRequest(spec=build_request(options).spec)
        try:
            return await self._catalog.EstimateExplanation(request, metadata=self._access.metadata())
        except grpc.RpcError as error:
            raise translate(error) from error

    async def models(self) -> list[catalog_pb2.ModelSummary]:
        """All models of the server."""
        found: list[catalog_pb2.ModelSummary] = []
        token = ""
        try:
            while True:
                page = await self._catalog.ListModels(
                    catalog_pb2.ListModelsRequest(page_token=token), metadata=self._access.metadata()
                )
                found.extend(page.models)
                token = page.next_page_token
                if not token:
                    return found
        except grpc.RpcError as error:
            raise translate(error) from error

    async def describe(self, model: str, *, version: str = "") -> catalog_pb2.Model:
        """One model; as Client.describe."""
        try:
            return (
                await self._catalog.GetModel(
                    catalog_pb2.GetModelRequest(name=model, version=version), metadata=self._access.metadata()
                )
            ).model
        except grpc.RpcError as error:
            raise translate(error) from error

    async def methods(self) -> list[catalog_pb2.MethodDescription]:
        """All methods; as Client.methods."""
        try:
            return list(
                (await self._catalog.ListMethods(catalog_pb2.ListMethodsRequest(), metadata=self._access.metadata())).methods
            )
        except grpc.RpcError as error:
            raise translate(error) from error

    def _dial(self, messages: AsyncIterator[bytes], timeout_s: float | None) -> Any:
        return self._explain(messages, timeout=timeout_s, metadata=self._access.metadata())
