"""A real front on a free port, over a catalogue and a runner that tests hold in their hands."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from voxplain import wire
from voxplain.v1 import catalog_pb2, explain_pb2, method_pb2, tensor_pb2
from voxplain_server.access import Access
from voxplain_server.models.model import Activation, InputSpec, ModalitySpec, Model, OutputKind, OutputSpec
from voxplain_server.models.traits import ModelTraits
from voxplain_server.observe.grpc_metrics import GrpcMetrics
from voxplain_server.observe.log import Log
from voxplain_server.observe.metrics import Metrics
from voxplain_server.observe.watch import Watch
from voxplain_server.service.access_control import credentials_of, guard_of
from voxplain_server.service.admission import Admission
from voxplain_server.service.case_files import CaseFiles
from voxplain_server.service.catalog import CatalogAnswers
from voxplain_server.service.explain import Explanations
from voxplain_server.service.inference import Inferences
from voxplain_server.service.server import GRPC_LABELS, create_server
from voxplain_server.service.spans import Tracer
from voxplain_server.settings import Limits
from voxplain_server.workers.catalog import Catalog, CatalogEntry, Refusal
from voxplain_server.workers.job import Job, JobEvent, MapReady, Runner
from voxplain_server.workers.ledger import Ledger
from voxplain_server.workers.memory import memory_of

from tests.oracle import memory_files, settle
from tests.server.service.fake_predictor import SIGNATURE, FakePredictor

SHAPE = (6, 5, 4)
MODALITIES = ("t1", "t1c")
AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])
VOLUME_BYTES = 6 * 5 * 4 * 4
EXPLAIN = "/voxplain.v1.ExplainService/Explain"


def model(name: str = "tiny", version: str = "1", shape: tuple[int | None, ...] = SHAPE) -> Model:
    """An early-fusion model that exists on paper only."""
    return Model(
        name=name,
        version=version,
        folder=Path(),
        onnx_path=Path(),
        digest="ab" * 32,
        metadata_digest="cd" * 32,
        description="two modalities",
        modalities=tuple(ModalitySpec(each, "image", channel, shape) for channel, each in enumerate(MODALITIES)),
        inputs=(InputSpec("image", MODALITIES),),
        output=OutputSpec("logits", "logits", OutputKind.CLASSES, Activation.NONE, ("round", "irregular")),
        batched=True,
    )


def entry(described: Model, traits: ModelTraits | None = None) -> CatalogEntry:
    """Its entry; by default a twin without ReLU, so that guided-backprop does not work."""
    traits = traits or ModelTraits(twin_parity=0.0, has_relu=False, evaluation_seconds=0.01, signature=SIGNATURE)
    told = catalog_pb2.Model(name=described.name, version=described.version, digest=described.digest)
    told.execution.threads_per_worker = 2
    return CatalogEntry(model=described, traits=traits, description=told, engine="onnxruntime-cpu")


def catalogue() -> Catalog:
    """Two versions of one model, a model of any size, and a refused one."""
    refused = Refusal("broken", catalog_pb2.RefusedVersion(version="1", reason="ONNX_INVALID", description="export again"))
    return Catalog([entry(model()), entry(model(version="2")), entry(model("wide", shape=(None, None, None)))], [refused])


def tensors(shape: tuple[int, ...] = SHAPE, prefix: str = "") -> list[tensor_pb2.Tensor]:
    """Headers of one case."""
    return [
        tensor_pb2.Tensor(
            id=prefix + name,
            role=tensor_pb2.TENSOR_ROLE_VOLUME,
            modality=name,
            data_type=tensor_pb2.DATA_TYPE_FLOAT32,
            shape=shape,
            affine=AFFINE.ravel(),
        )
        for name in MODALITIES
    ]


def good_spec() -> explain_pb2.ExplainSpec:
    """A spec that nothing is wrong with."""
    return explain_pb2.ExplainSpec(
        model="tiny",
        methods=[method_pb2.Method(gradient=method_pb2.Gradient())],
        tensors=tensors(),
    )


def only_method(spec: explain_pb2.ExplainSpec) -> method_pb2.Method:
    """Replace the methods of a spec by one, still to be chosen."""
    del spec.methods[:]
    return spec.methods.add()


def payload(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> dict[str, bytes]:
    """The bytes of one case by tensor id."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype("<f4").tobytes() for name in MODALITIES}


def spec_message(spec: explain_pb2.ExplainSpec) -> bytes:
    """The first message of a call."""
    return explain_pb2.ExplainRequest(spec=spec).SerializeToString()


def case_messages(case: dict[str, bytes] | None = None, *, chunk_bytes: int = 100) -> list[bytes]:
    """Chunks of all tensors, interleaved."""
    streams = [list(wire.encode_chunks(key, data, chunk_bytes=chunk_bytes)) for key, data in (case or payload()).items()]
    longest = max(map(len, streams))
    return [stream[index] for index in range(longest) for stream in streams if index < len(stream)]


Behaviour = Callable[[Job], AsyncIterator[JobEvent]]


@dataclass
class FakeRunner:
    """Runs jobs as a test tells it to; by default one map and one result for each method.

    Attributes:
        jobs: what came in.
        cases: the bytes of each job's tensors.
        closed: jobs that were ended before their record.
    """

    behaviour: Behaviour | None = None
    jobs: list[Job] = field(default_factory=list)
    cases: list[dict[str, bytes]] = field(default_factory=list)
    closed: int = 0
    running: asyncio.Event = field(default_factory=asyncio.Event)
    drained: float | None = None
    was_closed: bool = False

    @property
    def queue_length(self) -> int:
        """Nobody waits."""
        return 0

    async def run(self, job: Job) -> AsyncIterator[JobEvent]:
        """Keep what came in, then behave."""
        self.jobs.append(job)
        self.cases.append({each.header.id: os.pread(job.memory, each.size, each.offset) for each in job.tensors})
        self.running.set()
        try:
            async for event in (self.behaviour or explain_at_once)(job):
                yield event
        except GeneratorExit:
            self.closed += 1
            raise
        except asyncio.CancelledError:
            self.closed += 1
            raise

    async def drain(self, grace_s: float) -> None:
        """Remember that it was asked."""
        self.drained = grace_s

    async def close(self) -> None:
        """Remember that it was asked."""
        self.was_closed = True


async def explain_at_once(job: Job) -> AsyncIterator[JobEvent]:
    """A prediction, and for each method a map that holds the first modality's bytes, and a result."""
    yield explain_pb2.Progress(stage=explain_pb2.Progress.STAGE_PREPARING)
    yield explain_pb2.Prediction(score=1.5)
    for method in job.spec.methods:
        yield attribution(method.key, np.arange(120, dtype="<f4").reshape(SHAPE))
        yield explain_pb2.MethodResult(method_key=method.key, outcome=explain_pb2.OUTCOME_COMPLETED)
    results = [explain_pb2.MethodResult(method_key=method.key) for method in job.spec.methods]
    yield explain_pb2.ExplanationRecord(explanation_id=job.explanation_id, results=results)


async def compute_for_ever(job: Job) -> AsyncIterator[JobEvent]:
    """A prediction, and then nothing."""
    yield explain_pb2.Prediction(score=1.5)
    await asyncio.Event().wait()


def attribution(key: str, values: np.ndarray, *, snapshot: bool = False) -> MapReady:
    """A map in memory."""
    header = explain_pb2.Map(
        id=f"{key}-t1",
        method_key=key,
        quantity=explain_pb2.QUANTITY_ATTRIBUTION,
        modalities=["t1"],
        data_type=tensor_pb2.DATA_TYPE_FLOAT32,
        shape=values.shape,
        snapshot=snapshot,
        size_bytes=values.nbytes,
    )
    return MapReady(header, memory_of(values), "")


@dataclass
class Refused:
    """How a call ended badly."""

    code: grpc.StatusCode
    message: str
    reason: str
    fields: list[str]
    retry_s: float | None
    trailers: str


@dataclass
class Front:
    """A running front."""

    channel: grpc.aio.Channel
    admission: Admission
    runner: FakeRunner
    predictor: FakePredictor
    metrics: Metrics
    log: StringIO
    address: str
    ledger: Ledger

    def open(self, *, timeout: float | None = None) -> grpc.aio.StreamStreamCall[bytes, bytes]:
        """Open a call whose messages are bytes."""
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self.channel.stream_stream(EXPLAIN)
        return method(timeout=timeout)

    async def explain(
        self, spec: explain_pb2.ExplainSpec | None = None, messages: Iterable[bytes] | None = None
    ) -> list[explain_pb2.ExplainResponse]:
        """One call from end to end; the messages are the case by default."""
        call = self.open()
        await call.write(spec_message(spec or good_spec()))
        for message in case_messages() if messages is None else messages:
            await call.write(message)
        await call.done_writing()
        return [explain_pb2.ExplainResponse.FromString(each) async for each in call]

    async def refusal(
        self, spec: explain_pb2.ExplainSpec | None = None, messages: Sequence[bytes] = (), *, close: bool = False
    ) -> Refused:
        """Send a call that must be refused and tell how."""
        return await self.refusal_of([spec_message(spec or good_spec()), *messages], close=close)

    async def refusal_of(
        self, messages: Sequence[bytes], *, close: bool = False, compression: grpc.Compression | None = None
    ) -> Refused:
        """Send messages that must be refused and tell how; the stream stays open unless `close`.

        The blocking client does it, because grpc.aio's loses the status of a call that ends while it writes.
        """
        return await asyncio.to_thread(_refusal, self.address, messages, close, compression)


def _refusal(address: str, messages: Sequence[bytes], close: bool, compression: grpc.Compression | None) -> Refused:
    over = threading.Event()

    def requests() -> Iterator[bytes]:
        yield from messages
        if not close:
            over.wait(30)

    with grpc.insecure_channel(address) as channel:
        method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(EXPLAIN)
        call = method(requests(), timeout=30, compression=compression)
        try:
            for _ in call:
                pass
        except grpc.RpcError:
            pass
        finally:
            over.set()
        return told_of(call)


def told_of(call: Any) -> Refused:
    """The typed details of a call's end."""
    status = rpc_status.from_call(call)
    found: dict[str, Any] = {}
    for packed in status.details if status is not None else ():
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            detail = kind()
            if packed.Unpack(detail):
                found[kind.__name__] = detail
    bad, retry = found.get("BadRequest"), found.get("RetryInfo")
    return Refused(
        code=call.code(),
        message=call.details(),
        reason=found["ErrorInfo"].reason if "ErrorInfo" in found else "",
        fields=[each.field for each in bad.field_violations] if bad is not None else [],
        retry_s=retry.retry_delay.ToNanoseconds() / 1e9 if retry is not None else None,
        trailers=repr(call.trailing_metadata()) + str(status),
    )


@asynccontextmanager
async def running_front(
    behaviour: Behaviour | None = None,
    *,
    limits: Limits | None = None,
    max_bytes: int = 1 << 30,
    workers: int = 1,
    queue_length: int = 4,
    options: Sequence[tuple[str, object]] = (),
    access: Access = Access(),  # noqa: B008
    reflection: bool = False,
    tracer: Tracer | None = None,
    over: Runner | None = None,
    known: Catalog | None = None,
    ledger: Ledger | None = None,
    predictor: FakePredictor | None = None,
    files: CaseFiles | None = None,
) -> AsyncIterator[Front]:
    """Start a front; at its end its books must be even. It computes `over` a runner, by default a fake one."""
    limits = limits or Limits()
    ledger, open_before = ledger or Ledger(), memory_files()
    runner, predictor = FakeRunner(behaviour), predictor or FakePredictor()
    metrics, log = Metrics(), StringIO()
    watch = Watch(metrics, Log(log))
    admission = Admission(max_bytes=max_bytes, workers=workers, queue_length=queue_length, observer=watch, ledger=ledger)
    known = known or catalogue()
    server = create_server(
        Explanations(
            catalog=known,
            runner=over or runner,
            admission=admission,
            limits=limits,
            observer=watch,
            tracer=tracer,
            ledger=ledger,
            files=files,
        ),
        CatalogAnswers(catalog=known, admission=admission, limits=limits, observer=watch),
        Inferences(
            catalog=known,
            predictor=predictor,
            admission=admission,
            limits=limits,
            observer=watch,
            is_ready=lambda: True,
            version="0",
            ledger=ledger,
        ),
        guard=guard_of(access, watch),
        reflection=reflection,
        max_inference_bytes=limits.max_inference_bytes,
        interceptors=[GrpcMetrics(metrics, GRPC_LABELS)],
    )
    credentials = credentials_of(access)
    place = "127.0.0.1:0"
    port = server.add_insecure_port(place) if credentials is None else server.add_secure_port(place, credentials)
    await server.start()
    address = f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Front(channel, admission, runner, predictor, metrics, log, address, ledger)
        await settle(ledger, files=open_before)
    await server.stop(None)
    assert (admission.reserved_bytes, admission.calls) == (0, 0)
