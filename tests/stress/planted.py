"""Secrets and patients' names in every place where a client can put text: none may come out anywhere."""

from __future__ import annotations

import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from voxplain.v1 import catalog_pb2, explain_pb2

from tests.bundles import TinyBundle
from tests.oracle import settle_server
from tests.serving import RunningServer
from tests.stress.caller import EXPLAIN, case_of, occlusion
from tests.stress.models import tiny_bundle
from tests.stress.row import Row, Scale

MARK = "JANE-DOE-19570314"
HEADERS = (("x-patient", MARK), ("authorization", f"Bearer {MARK}"), ("user-agent", MARK), ("x-mark-bin", MARK.encode()))
DEPTH = 6
Planted = tuple[str, str, list[bytes]]
"""Where the text stands, the path of the method, and the messages."""


def plant(scale: Scale) -> list[Row]:
    """Send every planted call and look for the text in all that comes out."""
    with tempfile.TemporaryDirectory() as models, tempfile.TemporaryDirectory() as scratch:
        bundle = tiny_bundle(Path(models))
        arguments = ("--engine", "onnxruntime", "--threads-per-worker", "1", "--reflection")
        places, leaks = 0, []
        with RunningServer(bundle.models, arguments, {"TMPDIR": scratch, "VOXPLAIN_CHECKPOINT_KEY": MARK * 3}) as server:
            with grpc.insecure_channel(server.address) as channel:
                for place, path, messages in _planted(bundle):
                    places += 1
                    if MARK.lower() in _status(channel, path, messages).lower():
                        leaks.append(f"status of {place}")
            settle_server(server.metrics_url, server.pid)
            with urllib.request.urlopen(server.metrics_url) as page:
                leaks += ["metrics"] if MARK.lower() in page.read().decode().lower() else []
            lines = server.log.count("\n")
            leaks += ["log"] if MARK.lower() in server.log.lower() else []
            leaks += ["command line"] if MARK.encode() in Path(f"/proc/{server.pid}/cmdline").read_bytes() else []
            files = [each for each in Path(scratch).rglob("*") if each.is_file()]
            leaks += ["temporary file"] if any(MARK.encode() in each.read_bytes() for each in files) else []
    return [
        Row(
            what="planted secrets and patients' names",
            count=f"{places} places, and 4 headers in each call",
            goal="none in log, metrics, status texts, trailers, temporary files",
            figure=f"{len(leaks)} found {', '.join(leaks[:5])}; {lines} lines of log, {len(files)} files",
            passed=not leaks and lines > places // 2,
            remark="traces are looked through by the tests of the tracing extra",
        )
    ]


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
