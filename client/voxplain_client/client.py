"""The client for ordinary, synchronous code."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, Unpack

import grpc
from voxplain.v1 import catalog_pb2, catalog_pb2_grpc

from voxplain_client.access import Access
from voxplain_client.connection import CHANNEL_OPTIONS, EXPLAIN_PATH, plaintext_options, server_address
from voxplain_client.conversation import Conversation
from voxplain_client.explanation import Explanation
from voxplain_client.faults import translate
from voxplain_client.request import ExplainOptions, Request, build_request
from voxplain_client.retry_policy import RetryPolicy


class Client:
    """Explains cases on one server. May be shared by threads.

    Args:
        server: HOST:PORT. Default: the variable VOXPLAIN_SERVER, else 127.0.0.1:50051.
        access: TLS and a bearer token; None: plaintext, nobody in particular.
        credentials: those of gRPC, in the place of the files of `access`.
        policy: when broken calls are made again.

    Example:
        with Client("127.0.0.1:50051") as client:
            with client.explain(model="glioma-demo", volumes={"t1": t1, "t1c": t1c}, methods=["occlusion"]) as explanation:
                for event in explanation:
                    print(type(event).__name__)
                result = explanation.result()
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
            grpc.insecure_channel(address, options=plaintext_options(address))
            if credentials is None
            else grpc.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
        )
        self._explain: Any = self._channel.stream_stream(EXPLAIN_PATH, request_serializer=None, response_deserializer=None)
        self._catalog = catalog_pb2_grpc.CatalogServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; running explanations are cancelled."""
        self._channel.close()

    def explain(
        self, *, timeout_s: float | None = None, keep_maps: bool = True, **options: Unpack[ExplainOptions]
    ) -> Explanation:
        """Start an explanation.

        Args:
            timeout_s: the whole explanation, with all its calls, fails when it takes longer. None: no limit.
            keep_maps: False: `result()` holds no maps; take them from the events.
            options: see ExplainOptions.

        Raises:
            InvalidSpec, InvalidTensor: what can be seen to be wrong without the server.
        """
        return self.send(build_request(options), timeout_s=timeout_s, keep_maps=keep_maps)

    def send(self, request: Request, *, timeout_s: float | None = None, keep_maps: bool = True) -> Explanation:
        """Start an explanation from a request that was built before."""
        conversation = Conversation(request, policy=self._policy, keep_maps=keep_maps)
        return Explanation(conversation, self._dial, timeout_s=timeout_s)

    def estimate(self, **options: Unpack[ExplainOptions]) -> catalog_pb2.EstimateExplanationResponse:
        """What an explanation would cost. Refuses what `explain` would refuse on the spec; sends no voxels."""
        request = catalog_pb2.EstimateExplanationRequest(spec=build_request(options).spec)
        try:
            return self._catalog.EstimateExplanation(request, metadata=self._access.metadata())
        except grpc.RpcError as error:
            raise translate(error) from error

    def models(self) -> list[catalog_pb2.ModelSummary]:
        """All models of the server."""
        found: list[catalog_pb2.ModelSummary] = []
        token = ""
        try:
            while True:
                page = self._catalog.ListModels(
                    catalog_pb2.ListModelsRequest(page_token=token), metadata=self._access.metadata()
                )
                found.extend(page.models)
                token = page.next_page_token
                if not token:
                    return found
        except grpc.RpcError as error:
            raise translate(error) from error

    def describe(self, model: str, *, version: str = "") -> catalog_pb2.Model:
        """One model: modalities, classes, and for each method whether it works on it."""
        try:
            return self._catalog.GetModel(
                catalog_pb2.GetModelRequest(name=model, version=version), metadata=self._access.metadata()
            ).model
        except grpc.RpcError as error:
            raise translate(error) from error

    def methods(self) -> list[catalog_pb2.MethodDescription]:
        """All methods with citation, defaults and assumptions."""
        try:
            return list(self._catalog.ListMethods(catalog_pb2.ListMethodsRequest(), metadata=self._access.metadata()).methods)
        except grpc.RpcError as error:
            raise translate(error) from error

    def _dial(self, messages: Iterator[bytes], timeout_s: float | None) -> Any:
        return self._explain(messages, timeout=timeout_s, metadata=self._access.metadata())
