"""The record of a finished call."""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp
from voxplain.v1 import explain_pb2
from voxplain.worker.v1 import worker_pb2

from voxplain_server.workers.catalog import CatalogEntry
from voxplain_server.workers.job import Job, MapReady


class Finished(Protocol):
    """What is read of a call."""

    job: Job
    entry: CatalogEntry
    execution: explain_pb2.Execution
    cautions: list[explain_pb2.Caution]
    prepared: worker_pb2.Prepared | None
    results: list[explain_pb2.MethodResult]
    maps: list[explain_pb2.MapDigest]

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was handed to the pool."""


def make_record(call: Finished, ready: worker_pb2.Ready) -> explain_pb2.ExplanationRecord:
    """Everything needed to see how the maps came about, and to make them again. No patient data.

    `start_time` is when the job was handed to the pool; the service, which saw the spec arrive, knows better.
    """
    spec, model = call.job.spec, call.entry.model
    record = explain_pb2.ExplanationRecord(
        explanation_id=call.job.explanation_id,
        voxplain_version=_own_version(),
        package_versions=dict(ready.package_versions),
        model=model.name,
        version=model.version,
        model_digest=model.digest,
        metadata_digest=model.metadata_digest,
        device=ready.device,
        execution=call.execution,
        methods=spec.methods,
        seed=spec.seed,
        maps=call.maps,
        results=call.results,
        cautions=_without_repeats(call.cautions),
        grid=spec.grid or explain_pb2.GRID_INPUT,
    )
    if spec.HasField("budget"):
        record.budget.CopyFrom(spec.budget)
    if call.prepared is not None:
        record.target.CopyFrom(call.prepared.prediction.target)
        record.prediction.CopyFrom(call.prepared.prediction)
        record.inputs.extend(call.prepared.digests)
    if call.entry.traits.twin_parity is not None:
        record.twin_parity = call.entry.traits.twin_parity
    record.start_time.CopyFrom(_timestamp(time.time() - call.elapsed_s))
    record.end_time.CopyFrom(_timestamp(time.time()))
    return record


def digest_of(ready: MapReady) -> explain_pb2.MapDigest:
    """What the record keeps of a final map."""
    header = ready.header
    return explain_pb2.MapDigest(
        method_key=header.method_key, quantity=header.quantity, modalities=header.modalities, sha256=ready.sha256
    )


def _without_repeats(cautions: list[explain_pb2.Caution]) -> list[explain_pb2.Caution]:
    kept = {(each.code, each.method_key, each.description): each for each in cautions}
    return list(kept.values())


def _own_version() -> str:
    try:
        return version("voxplain")
    except PackageNotFoundError:
        return "unknown"


def _timestamp(seconds: float) -> Timestamp:
    made = Timestamp()
    made.FromNanoseconds(int(seconds * 1e9))
    return made
