"""The Open Inference Protocol: predictions by raw tensors, from the very files that are explained."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from voxplain.errors import DeadlinePassed, InvalidSpec, ModelNotFound, VoxplainError
from voxplain.inference import open_inference_pb2 as protocol

from voxplain_server.models.signature import TensorFace
from voxplain_server.service.admission import Admission
from voxplain_server.service.call_observer import CallObserver
from voxplain_server.service.infer_answer import answer_message
from voxplain_server.service.infer_message import split_request
from voxplain_server.service.infer_request import CheckedInference, check_request, typed_bytes
from voxplain_server.service.message_bound import check_message
from voxplain_server.service.status import abort_with, conceal
from voxplain_server.service.writing import write_to
from voxplain_server.settings import Limits
from voxplain_server.workers.catalog import Catalog
from voxplain_server.workers.inference import Inference, Predictor
from voxplain_server.workers.ledger import Ledger
from voxplain_server.workers.memory import create_memory

INFERENCE_SERVICE = protocol.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
PLATFORM = "onnxruntime_onnx"
"""The word of this protocol's first server for a model that ONNX Runtime runs."""
COPIES = 2
"""A message and the memory file that it becomes, each way."""
_TYPED_AT_ONCE = 1 << 16
"""Bytes of typed contents that are turned into an array on the spot; more go to a thread."""

Answer = TypeVar("Answer", bound=Message)
Context = grpc.aio.ServicerContext[Any, Any]


class Inferences:
    """Serves GRPCInferenceService.

    Args:
        catalog: the models.
        predictor: runs them.
        admission: lets calls in.
        limits: what one call may take.
        observer: told of calls.
        is_ready: whether the server takes calls.
        version: of the server.
        ledger: where calls book what they take; None: one of its own.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        predictor: Predictor,
        admission: Admission,
        limits: Limits,
        observer: CallObserver,
        is_ready: Callable[[], bool],
        version: str,
        ledger: Ledger | None = None,
    ) -> None:
        self._catalog = catalog
        self._predictor = predictor
        self._admission = admission
        self._limits = limits
        self._observer = observer
        self._is_ready = is_ready
        self._version = version
        self._ledger = ledger or Ledger()

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server registers. ModelInfer stays bytes and is served as a stream, so that its message is read only when
        there is room for it; on the wire it is no other call."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "ServerLive": _unary(self.server_live, protocol.ServerLiveRequest),
            "ServerReady": _unary(self.server_ready, protocol.ServerReadyRequest),
            "ModelReady": _unary(self.model_ready, protocol.ModelReadyRequest),
            "ServerMetadata": _unary(self.server_metadata, protocol.ServerMetadataRequest),
            "ModelMetadata": _unary(self.model_metadata, protocol.ModelMetadataRequest),
            "ModelInfer": grpc.stream_stream_rpc_method_handler(self.model_infer, None, None),
        }
        return grpc.method_handlers_generic_handler(INFERENCE_SERVICE, methods)

    async def server_live(self, request: protocol.ServerLiveRequest, context: Context) -> protocol.ServerLiveResponse:
        """It answers, so it lives."""
        return protocol.ServerLiveResponse(live=True)

    async def server_ready(self, request: protocol.ServerReadyRequest, context: Context) -> protocol.ServerReadyResponse:
        """As health tells it."""
        return protocol.ServerReadyResponse(ready=self._is_ready())

    async def model_ready(self, request: protocol.ModelReadyRequest, context: Context) -> protocol.ModelReadyResponse:
        """Whether the catalogue has it; a model that there is not is not ready, and that is no fault."""
        try:
            entry = self._catalog.find(request.name, request.version)
        except ModelNotFound:
            return protocol.ModelReadyResponse(ready=False)
        return protocol.ModelReadyResponse(ready=self._is_ready() and bool(entry.traits.signature.inputs))

    async def server_metadata(
        self, request: protocol.ServerMetadataRequest, context: Context
    ) -> protocol.ServerMetadataResponse:
        """Name and version."""
        return protocol.ServerMetadataResponse(name="voxplain", version=self._version)

    async def model_metadata(self, request: protocol.ModelMetadataRequest, context: Context) -> protocol.ModelMetadataResponse:
        """The signature of the model's file."""
        try:
            entry = self._catalog.find(request.name, request.version)
        except ModelNotFound as error:
            self._observer.call_refused(model="", reason=error.reason, code=error.code.name)
            refusal = error
        else:
            signature = entry.traits.signature
            return protocol.ModelMetadataResponse(
                name=entry.model.name,
                versions=[each.model.version for each in self._catalog.versions(entry.model.name)],
                platform=PLATFORM,
                inputs=map(_face, signature.inputs),
                outputs=map(_face, signature.outputs),
            )
        await abort_with(context, refusal)

    async def model_infer(self, _: object, context: Context) -> None:
        """Serve one call; every fault leaves as a status with typed details, and nothing stays reserved."""
        self._ledger.acquire("handlers")
        try:
            await self._serve(context)
        except Exception as fault:
            error = conceal(fault, self._observer)
        else:
            return
        finally:
            self._ledger.release("handlers")
        await abort_with(context, error)

    async def _serve(self, context: Context) -> None:
        began_at, most = time.monotonic(), self._limits.max_inference_bytes
        known_model = ""
        with ExitStack() as held:
            try:
                # Before the message is read: how large it is, gRPC tells only then.
                ticket = held.enter_context(self._admission.admit(2 * COPIES * most))
                message = await self._read(context)
                request, raw = split_request(message)
                asked = check_request(request, raw, self._catalog)
                known_model = asked.entry.model.name
            except VoxplainError as refusal:
                self._observer.call_refused(model=known_model, reason=refusal.reason, code=refusal.code.name)
                raise
            ticket.keep(COPIES * (len(message) + most))
            received = len(message)
            memory = create_memory(asked.total_bytes)
            held.callback(self._ledger.lend("case_files"))
            held.callback(os.close, memory)
            outcome, reason, sent = "failed", "INTERNAL_ERROR", 0
            try:
                await _fill(memory, asked, request)
                del message, raw
                self._observer.bytes_moved(received=asked.total_bytes)
                sent = await self._answer(context, asked, memory, request.id)
                outcome, reason = "completed", ""
            except asyncio.CancelledError:
                outcome, reason = "cancelled", "CANCELLED"
                raise
            except VoxplainError as error:
                reason = error.reason
                raise
            finally:
                self._observer.inference_ended(
                    model=known_model,
                    outcome=outcome,
                    reason=reason,
                    seconds=time.monotonic() - began_at,
                    bytes_received=received,
                    bytes_sent=sent,
                )

    async def _read(self, context: Context) -> bytes:
        """The one message of the call.

        Raises:
            DeadlinePassed: UPLOAD_TOO_SLOW.
            InvalidSpec: EMPTY_MESSAGE.
            LimitExceeded: MESSAGE_TOO_LARGE.
        """
        limits = self._limits
        patience = limits.first_message_seconds + limits.max_inference_bytes / limits.min_upload_bytes_per_second
        try:
            async with asyncio.timeout(patience):
                message = await context.read()
        except TimeoutError:
            raise DeadlinePassed("UPLOAD_TOO_SLOW", "the message came slower than this server waits for") from None
        if not isinstance(message, bytes):
            raise InvalidSpec("EMPTY_MESSAGE", "send one message")
        check_message(message, limits.max_inference_bytes)
        return message

    async def _answer(self, context: Context, asked: CheckedInference, memory: int, request_id: str) -> int:
        """Let the file answer and send it on. Returns the bytes of the message."""
        inference = Inference(entry=asked.entry, inputs=asked.inputs, memory=memory, outputs=asked.outputs)
        inferred = await self._predictor.infer(inference)
        try:
            answer = answer_message(asked, inferred, request_id=request_id, most=self._limits.max_inference_bytes)
        finally:
            inferred.close()
        self._observer.bytes_moved(sent=sum(tensor.size for tensor in inferred.outputs))
        try:
            async with asyncio.timeout(self._limits.send_stall_seconds):
                await write_to(context, answer)
        except TimeoutError:
            raise DeadlinePassed("CLIENT_TOO_SLOW", "the answer was left unread for too long") from None
        return len(answer)


async def _fill(memory: int, asked: CheckedInference, request: protocol.ModelInferRequest) -> None:
    """Write every input to its place."""
    for index, (place, content) in enumerate(zip(asked.inputs, asked.contents, strict=True)):
        if content is None:
            typed = request.inputs[index]
            at_once = place.size <= _TYPED_AT_ONCE
            content = typed_bytes(typed, index) if at_once else await asyncio.to_thread(typed_bytes, typed, index)
        written = 0
        while written < place.size:
            written += os.pwrite(memory, content[written:], place.offset + written)


def _unary(behaviour: Callable[[Any, Context], Awaitable[Message]], request: type[Message]) -> grpc.RpcMethodHandler[Any, Any]:
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
        behaviour,
        request_deserializer=request.FromString,
        response_serializer=lambda response: response.SerializeToString(),
    )
    return handler


def _face(face: TensorFace) -> protocol.ModelMetadataResponse.TensorMetadata:
    return protocol.ModelMetadataResponse.TensorMetadata(name=face.name, datatype=face.datatype, shape=face.shape or ())
