"""A small server that speaks the contract and computes nothing worth having: what the client is tested against."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from voxplain.errors import ERROR_DOMAIN
from voxplain.v1 import catalog_pb2, catalog_pb2_grpc, explain_pb2, tensor_pb2
from voxplain.wire import DTYPES, Assembler, ChunkView, array_bytes, decode_request, encode_chunks, tensor_bytes
from voxplain_client.method_names import METHOD_NAMES, make_method, method_key, method_name

CHECKPOINT = b"halfway"
MODALITIES = ("t1", "t1c")


def status_of(
    code: grpc.StatusCode, reason: str, message: str, *, fields: tuple[str, ...] = (), retry_s: float | None = None
) -> status_pb2.Status:
    """A typed status, as the contract describes it."""
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN)]
    if fields:
        violations = [error_details_pb2.BadRequest.FieldViolation(field=name) for name in fields]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if retry_s is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=round(retry_s * 1e9))))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code.value[0], message=message, details=packed)


@dataclass
class Break:
    """How a call ends too early.

    Attributes:
        after: events (maps and their chunks count as one) that are sent before.
        status: a typed status; None: the bare code, as when a connection is lost.
        code: the bare code.
        text: its text.
        silently: True: the stream ends without a status.
    """

    after: int
    status: status_pb2.Status | None = None
    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    text: str = "Socket closed"
    silently: bool = False


@dataclass
class ContractServer(catalog_pb2_grpc.CatalogServiceServicer):
    """Serves one model, "fake", of two modalities and two classes. The map of a modality is its volume times 2.

    Attributes:
        breaks: one for each call that shall end too early, in order; later calls go through.
        wait_before_maps: when set, the call waits here until it is cancelled.
        hold_before: the key of a method, before which the call waits likewise.
        change_map: spoils the bytes of every map behind its digest.
        outcomes: by method key, where it is not COMPLETED.
        specs: what came in.
        volumes: the tensors of the last call.
        cancelled: set when a call was cancelled by the client.
    """

    breaks: list[Break] = field(default_factory=list)
    wait_before_maps: bool = False
    hold_before: str = ""
    change_map: bool = False
    signs: dict[str, bool] = field(default_factory=dict)
    outcomes: dict[str, explain_pb2.Outcome.ValueType] = field(default_factory=dict)
    specs: list[explain_pb2.ExplainSpec] = field(default_factory=list)
    volumes: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    cancelled: threading.Event = field(default_factory=threading.Event)
    waiting: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        handler: Any = grpc.stream_stream_rpc_method_handler(self._explain)
        service = grpc.method_handlers_generic_handler("voxplain.v1.ExplainService", {"Explain": handler})
        self._server.add_generic_rpc_handlers((service,))
        catalog_pb2_grpc.add_CatalogServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.stop(0).wait()

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    def ListModels(self, request: Any, context: Any) -> catalog_pb2.ListModelsResponse:  # noqa: N802
        """Two pages of one model each."""
        if request.page_token:
            refused = catalog_pb2.RefusedVersion(version="2", reason="ONNX_UNREADABLE", description="export it again")
            return catalog_pb2.ListModelsResponse(models=[catalog_pb2.ModelSummary(name="other", refused_versions=[refused])])
        model = catalog_pb2.ModelSummary(name="fake", versions=["1"], description="doubles volumes")
        return catalog_pb2.ListModelsResponse(models=[model], next_page_token="more")

    def GetModel(self, request: Any, context: Any) -> catalog_pb2.GetModelResponse:  # noqa: N802
        """The model, on which guided-backprop does not work."""
        if request.name != "fake":
            status = status_of(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "no such model", fields=("name",))
            context.abort_with_status(rpc_status.to_status(status))
        no_relu = catalog_pb2.MethodAvailability(method="guided-backprop", available=False)
        no_relu.reasons.add(code="NO_RELU", description="the model has no ReLU")
        works = [catalog_pb2.MethodAvailability(method=name, available=True) for name in ("gradient", "occlusion", "lime")]
        model = catalog_pb2.Model(
            name="fake", version="1", digest="d" * 64, classes=["round", "irregular"], methods=[*works, no_relu]
        )
        for name in MODALITIES:
            model.modalities.add(name=name, input="case", shape=[0, 0, 0])
        return catalog_pb2.GetModelResponse(model=model)

    def ListMethods(self, request: Any, context: Any) -> catalog_pb2.ListMethodsResponse:  # noqa: N802
        """All methods, without a word about them."""
        found = [catalog_pb2.MethodDescription(name=name, summary="s", defaults=make_method(name)) for name in METHOD_NAMES]
        return catalog_pb2.ListMethodsResponse(methods=found)

    def EstimateExplanation(self, request: Any, context: Any) -> catalog_pb2.EstimateExplanationResponse:  # noqa: N802
        """One evaluation for each method."""
        plans = [explain_pb2.MethodPlan(method_key=method_key(one), evaluations=1) for one in request.spec.methods]
        return catalog_pb2.EstimateExplanationResponse(plans=plans)

    def _explain(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        if self.wait_before_maps or self.hold_before:
            context.add_callback(self.cancelled.set)
        spec = decode_request(next(requests))
        assert not isinstance(spec, ChunkView)
        self.specs.append(spec)
        end = self.breaks.pop(0) if self.breaks else None
        for number, event in enumerate(self._events(spec, requests, context)):
            if end is not None and number == end.after:
                if end.status is not None:
                    context.abort_with_status(rpc_status.to_status(end.status))
                elif not end.silently:
                    context.abort(end.code, end.text)
                return
            yield from event

    def _events(self, spec: explain_pb2.ExplainSpec, requests: Iterator[bytes], context: Any) -> Iterator[list[bytes]]:
        accepted = explain_pb2.Accepted(
            explanation_id=f"e{len(self.specs)}", model=spec.model, version="1", model_digest="d" * 64, seed=spec.seed
        )
        accepted.methods.extend(spec.methods)
        yield _response(accepted=accepted)
        self.volumes = _receive(spec, requests)
        prediction = explain_pb2.Prediction(score=2.0, scale=explain_pb2.SCORE_SCALE_LOGIT, target_name="irregular")
        prediction.class_scores.add(index=1, name="irregular", score=2.0, probability=0.88)
        prediction.plans.extend(explain_pb2.MethodPlan(method_key=method_key(one), evaluations=4) for one in spec.methods)
        yield _response(prediction=prediction)
        if self.wait_before_maps:
            self.waiting.set()
            self.cancelled.wait(20)
        record = explain_pb2.ExplanationRecord(
            explanation_id=accepted.explanation_id, voxplain_version="0.1.0", model=spec.model, version="1",
            model_digest="d" * 64, target=spec.target, methods=spec.methods, seed=spec.seed, budget=spec.budget,
            prediction=prediction,
        )  # fmt: skip
        for tensor in spec.tensors:
            digest = hashlib.sha256(array_bytes(self.volumes[tensor.id])).hexdigest()
            record.inputs.add(tensor=tensor, sha256=digest)
        for place, method in enumerate(spec.methods):
            if method_key(method) == self.hold_before:
                self.waiting.set()
                self.cancelled.wait(20)
            yield from self._method_events(spec, method_key(method), method_name(method), place, record)
        yield _response(summary=explain_pb2.Summary(record=record))

    def _method_events(
        self, spec: explain_pb2.ExplainSpec, key: str, name: str, place: int, record: explain_pb2.ExplanationRecord
    ) -> Iterator[list[bytes]]:
        progress = explain_pb2.Progress(
            stage=explain_pb2.Progress.STAGE_COMPUTING, method_key=key, evaluations_done=2, evaluations_total=4,
            checkpoint=CHECKPOINT + bytes([place]),
        )  # fmt: skip
        yield _response(progress=progress)
        outcome = self.outcomes.get(key, explain_pb2.OUTCOME_COMPLETED)
        result = explain_pb2.MethodResult(
            method_key=key, outcome=outcome, evaluations_planned=4, evaluations_done=4, is_signed=self.signs.get(key, True)
        )
        if outcome == explain_pb2.OUTCOME_FAILED:
            result.reason, result.description = "WORKER_LOST", "the worker died"
        elif outcome != explain_pb2.OUTCOME_COMPLETED:
            result.reason, result.evaluations_done = "BUDGET", 2
        if outcome != explain_pb2.OUTCOME_FAILED:
            volumes = [tensor for tensor in spec.tensors if tensor.id.startswith("volume")]
            for tensor in volumes[:1] if name == "grad-cam" else volumes:
                array = (self.volumes[tensor.id].astype(np.float32) * 2).astype("<f4")
                modalities = [one.modality for one in volumes] if name == "grad-cam" else [tensor.modality]
                header = explain_pb2.Map(
                    id=f"{key}-{tensor.modality}", method_key=key, quantity=explain_pb2.QUANTITY_ATTRIBUTION,
                    modalities=modalities, data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=array.shape, affine=tensor.affine,
                    grid=explain_pb2.GRID_INPUT, size_bytes=array.nbytes,
                )  # fmt: skip
                digest = hashlib.sha256(array_bytes(array)).hexdigest()
                if self.change_map:
                    array = array + 1
                record.maps.add(method_key=key, quantity=header.quantity, modalities=modalities, sha256=digest)
                if name != "grad-cam":
                    positive, total = float(array[array > 0].sum()), float(array.sum())
                    result.modality_importance.add(
                        modality=tensor.modality, sum_positive=positive, sum=total, sum_absolute=2 * positive - total
                    )
                chunks = encode_chunks(header.id, array_bytes(array), response=True, chunk_bytes=1000)
                yield [*_response(map=header), *chunks]
        record.results.append(result)
        yield _response(method_result=result)


def _receive(spec: explain_pb2.ExplainSpec, requests: Iterator[bytes]) -> dict[str, npt.NDArray[Any]]:
    arrays = {tensor.id: np.zeros(tuple(tensor.shape), DTYPES[tensor.data_type]) for tensor in spec.tensors}

    def write(tensor_id: str, offset: int, data: memoryview) -> None:
        flat = arrays[tensor_id].reshape(-1).view(np.uint8)
        flat[offset : offset + len(data)] = np.frombuffer(data, np.uint8)

    assembler = Assembler({tensor.id: tensor_bytes(tensor) for tensor in spec.tensors}, write)
    while not assembler.complete:
        chunk = decode_request(next(requests))
        assert isinstance(chunk, ChunkView)
        assembler.add(chunk)
    return arrays


def _response(**event: Any) -> list[bytes]:
    return [explain_pb2.ExplainResponse(**event).SerializeToString()]
