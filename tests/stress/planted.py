"""Secrets and patients' names in every place where a client can put text: none may come out anywhere."""

from __future__ import annotations

import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from voxplain.v1 import catalog_pb2, explain_pb2

from tests.benchmarks.process_tree import tree_of
from tests.bundles import TinyBundle
from tests.oracle import settle_server
from tests.serving import RunningServer
from tests.stress.caller import EXPLAIN, case_of, occlusion
from tests.stress.models import tiny_bundle
from tests.stress.row import Row, Scale

MARK = "JANE-DOE-19570314"
HEADERS = (
    ("x-patient", MARK),
    ("authorization", f"Bearer {MARK}"),
    ("user-agent", MARK),
    ("x-mark-bin", MARK.encode()),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("tracestate", f"patient={MARK.lower()}"),
    ("baggage", f"patient={MARK}"),
)
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
DEPTH = 6
Planted = tuple[str, str, list[bytes]]
"""Where the text stands, the path of the method, and the messages."""


def plant(scale: Scale) -> list[Row]:
    """Send every planted call and look for the text in all that comes out."""
    with tempfile.TemporaryDirectory() as models, tempfile.TemporaryDirectory() as scratch:
        bundle = tiny_bundle(Path(models))
        arguments = ("--engine", "onnxruntime", "--threads-per-worker", "1", "--reflection", "--cache", f"{scratch}/cache")
        places, leaks = 0, []
        with _collector() as (endpoint, traces), RunningServer(bundle.models, arguments, _environ(scratch, endpoint)) as server:
            with grpc.insecure_channel(server.address) as channel:
                for place, path, messages in _planted(bundle):
                    places += 1
                    if MARK.lower() in _status(channel, path, messages).lower():
                        leaks.append(f"status of {place}")
            settle_server(server.metrics_url, server.pid)
            with urllib.request.urlopen(server.metrics_url) as page:
                leaks += ["metrics"] if MARK.lower() in page.read().decode().lower() else []
            log = server.log
            leaks += ["log"] if MARK.lower() in log.lower() else []
            workers = tree_of(server.pid)[1:]
            for pid in (server.pid, *workers):
                leaks += ["command line"] if MARK.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() else []
            for pid in workers:
                leaks += ["environment of a worker"] if MARK.encode() in Path(f"/proc/{pid}/environ").read_bytes() else []
            server.stop()
            leaks += ["trace"] if MARK.lower() in b"".join(traces).decode("latin-1").lower() else []
            files = [each for each in Path(scratch).rglob("*") if each.is_file()]
            leaks += ["temporary file"] if any(MARK.encode() in each.read_bytes() for each in files) else []
    lines, spans = log.count("\n"), sum(each.count(b"voxplain.explain") for each in traces)
    return [
        Row(
            what="planted secrets and patients' names",
            count=f"{places} places, and {len(HEADERS) - 1} headers in each call",
            goal="none in log, metrics, traces, status texts, trailers, temporary files, nor in what workers are started with",
            figure=f"{len(leaks)} found{': ' * bool(leaks)}{', '.join(leaks[:5])}; {lines} lines of log, {spans} spans in "
            f"{len(traces)} messages to a collector, {len(files)} files, {len(workers)} workers",
            passed=not leaks
            and lines > places // 2
            and spans == log.count('"call_started"') > 4
            and bool(files)
            and bool(workers),
        )
    ]


def _environ(scratch: str, endpoint: str) -> dict[str, str]:
    """Secrets of the operator's: the key of checkpoints, and what the collector of traces asks for."""
    otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_INSECURE": "true", "OTEL_BSP_SCHEDULE_DELAY": "200"}
    return otel | {
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-key={MARK.lower()}",
        "TMPDIR": scratch,
        "VOXPLAIN_CHECKPOINT_KEY": MARK * 3,
    }


@contextmanager
def _collector() -> Iterator[tuple[str, list[bytes]]]:
    """Takes traces as OpenTelemetry's collector does, in memory; yields its address, and what came, as it came."""
    taken: list[bytes] = []

    def take(message: bytes, context: grpc.ServicerContext) -> bytes:
        taken.append(message)
        return b""

    service, _, method = EXPORT[1:].partition("/")
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(take)
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", taken
    finally:
        server.stop(None).wait()


def _planted(bundle: TinyBundle) -> Iterator[Planted]:
    good = case_of(bundle, [occlusion(6, 5)])
    spec = explain_pb2.ExplainRequest.FromString(good[0]).spec
    for where, spoilt in _with_mark(spec, "spec", DEPTH):
        yield where, EXPLAIN, [explain_pb2.ExplainRequest(spec=spoilt).SerializeToString(), *good[1:]]
    for where, spoilt in _with_mark(explain_pb2.ExplainRequest.FromString(good[1]).chunk, "chunk", 1):
        yield where, EXPLAIN, [good[0], explain_pb2.ExplainRequest(chunk=spoilt).SerializeToString()]
    yield "bytes that are no message", EXPLAIN, [good[0], b"\xff" + MARK.encode()]
    yield "bytes that are no spec", EXPLAIN, [MARK.encode()]
    voxels = bundle.volumes()
    voxels[bundle.modalities[0]].flat[0] = np.nan
    yield "a volume that is refused", EXPLAIN, case_of(bundle, [occlusion(6, 5, key="jane-doe-19570314")], volumes=voxels)
    yield "the path", f"/voxplain.v1.ExplainService/{MARK}", [good[0]]
    for name, kind in (
        ("GetModel", catalog_pb2.GetModelRequest),
        ("ListModels", catalog_pb2.ListModelsRequest),
        ("EstimateExplanation", catalog_pb2.EstimateExplanationRequest),
    ):
        for where, spoilt in _with_mark(kind(), name, 2):
            yield where, f"/voxplain.v1.CatalogService/{name}", [spoilt.SerializeToString()]


def _with_mark(message: Any, where: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Copies of a message, each with the text in one field more, also in fields that were not set."""
    for descriptor in message.DESCRIPTOR.fields:
        path = f"{where}.{descriptor.name}"
        if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
            if depth == 0:
                continue
            below = getattr(message, descriptor.name)
            if descriptor.is_repeated:
                for index in range(min(len(below), 1)):
                    for place, spoilt in _with_mark(below[index], f"{path}[0]", depth - 1):
                        yield place, _replaced(message, descriptor.name, spoilt, index)
            else:
                for place, spoilt in _with_mark(below, path, depth - 1):
                    yield place, _replaced(message, descriptor.name, spoilt, None)
        elif descriptor.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            value = MARK if descriptor.type == FieldDescriptor.TYPE_STRING else MARK.encode()
            spoilt = type(message)()
            spoilt.CopyFrom(message)
            if descriptor.is_repeated:
                getattr(spoilt, descriptor.name).append(value)
            else:
                setattr(spoilt, descriptor.name, value)
            yield path, spoilt


def _replaced(message: Message, name: str, below: Message, index: int | None) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    (getattr(copy, name) if index is None else getattr(copy, name)[index]).CopyFrom(below)
    return copy


def _status(channel: grpc.Channel, path: str, messages: list[bytes]) -> str:
    """All that a call tells of its end. A good answer may hold what its client sent, its error may not."""
    method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
    call = method(iter(messages), timeout=60, metadata=HEADERS)
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        pass
    return f"{call.details()} {call.initial_metadata()!r} {call.trailing_metadata()!r}"
