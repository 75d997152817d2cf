"""Jobs as the front hands them to the pool, and what came back."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from voxplain.v1 import explain_pb2, method_pb2
from voxplain_server.methods.resolve import resolve_method
from voxplain_server.workers.catalog import Catalog
from voxplain_server.workers.job import Job, JobEvent, MapReady, TensorPlace
from voxplain_server.workers.ledger import Ledger
from voxplain_server.workers.memory import create_memory, map_memory
from voxplain_server.workers.pool import WorkerPool
from voxplain_server.workers.pool_settings import PoolSettings

from tests.bundles import TinyBundle
from tests.oracle import memory_files, settle

# A progress after every event: what tests look for must not depend on how fast this machine is.
FAST = {"preload": False, "progress_s": 0.001, "checkpoint_s": 0.0, "estimate_s": 0.2}
MapName = tuple[str, str, tuple[str, ...]]


@dataclass(slots=True)
class Answer:
    """Every event of a job, maps read and their memory closed."""

    events: list[JobEvent] = field(default_factory=list)
    bytes_by_map: dict[MapName, bytes] = field(default_factory=dict)
    snapshots: list[tuple[explain_pb2.Map, bytes]] = field(default_factory=list)

    @property
    def record(self) -> explain_pb2.ExplanationRecord:
        last = self.events[-1]
        assert isinstance(last, explain_pb2.ExplanationRecord)
        return last

    @property
    def prediction(self) -> explain_pb2.Prediction:
        return next(event for event in self.events if isinstance(event, explain_pb2.Prediction))

    @property
    def results(self) -> dict[str, explain_pb2.MethodResult]:
        return {event.method_key: event for event in self.events if isinstance(event, explain_pb2.MethodResult)}

    @property
    def checkpoints(self) -> list[bytes]:
        return [event.checkpoint for event in self.events if isinstance(event, explain_pb2.Progress) and event.checkpoint]

    def map_of(self, key: str, modality: str, quantity: str = "ATTRIBUTION") -> npt.NDArray[np.float32]:
        return np.frombuffer(self.bytes_by_map[key, quantity, (modality,)], dtype="<f4")

    def take(self, event: JobEvent) -> None:
        self.events.append(event)
        if isinstance(event, MapReady):
            content = map_memory(event.memory, event.header.size_bytes, writable=False).tobytes()
            event.close()
            quantity = explain_pb2.Quantity.Name(event.header.quantity).removeprefix("QUANTITY_")
            if event.header.snapshot or quantity == "LABELS":
                self.snapshots.append((event.header, content))
            else:
                self.bytes_by_map[event.header.method_key, quantity, tuple(event.header.modalities)] = content


@dataclass(slots=True)
class Counts:
    """A PoolObserver that adds up."""

    evaluated: int = 0
    saved_by: Counter[str] = field(default_factory=Counter)
    restarted: list[str] = field(default_factory=list)
    stopped: list[float] = field(default_factory=list)
    queued: list[int] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    passes: Counter[int] = field(default_factory=Counter)
    compute: list[tuple[int, bool]] = field(default_factory=list)

    def clear(self) -> None:
        self.evaluated = 0
        self.saved_by.clear()
        self.restarted.clear()
        self.stopped.clear()
        self.queued.clear()
        self.waited.clear()
        self.passes.clear()

    def evaluations(self, *, method: str, engine: str, count: int) -> None:
        self.evaluated += count

    def saved(self, *, reason: str, count: int) -> None:
        self.saved_by[reason] += count

    def batches(self, *, size: int, passes: int) -> None:
        self.passes[size] += passes

    def restarts(self, reason: str) -> None:
        self.restarted.append(reason)

    def cancel_to_stop_seconds(self, seconds: float) -> None:
        self.stopped.append(seconds)

    def queue_length(self, calls: int) -> None:
        self.queued.append(calls)

    def queue_wait_seconds(self, seconds: float) -> None:
        self.waited.append(seconds)

    def workers(self, *, ready: int, failing: bool) -> None:
        self.compute.append((ready, failing))


def method(name: str, /, key: str = "", **params: Any) -> method_pb2.Method:
    """A method by its kebab name."""
    made = method_pb2.Method(key=key)
    member = getattr(made, name.replace("-", "_"))
    member.SetInParent()
    for field_name, value in params.items():
        if isinstance(value, Sequence):
            getattr(member, field_name).extend(value)
        elif hasattr(value, "DESCRIPTOR"):
            getattr(member, field_name).CopyFrom(value)
        else:
            setattr(member, field_name, value)
    return made


@asynccontextmanager
async def job(
    bundle: TinyBundle,
    catalog: Catalog,
    methods: Sequence[method_pb2.Method],
    *,
    volumes: Mapping[str, npt.NDArray[Any]] | None = None,
    deadline_s: float | None = None,
    **spec: Any,
) -> AsyncIterator[Job]:
    """A job whose memory lives as long as the context."""
    entry = catalog.find(bundle.name, bundle.version)
    resolved = []
    for each in methods:
        done, violations = resolve_method(each, entry.model)
        assert not violations
        resolved.append(done)
    arrays = bundle.volumes() if volumes is None else volumes
    places, end = [], 0
    for header in bundle.headers():
        size = arrays[header.modality].nbytes
        places.append(TensorPlace(header=header, offset=end, size=size))
        end = -(-(end + size) // 64) * 64
    memory = create_memory(end)
    try:
        held = map_memory(memory, end, writable=True)
        for place in places:
            array = np.ascontiguousarray(arrays[place.header.modality])
            held[place.offset : place.offset + place.size] = array.reshape(-1).view(np.uint8)
        del held
        yield Job(
            explanation_id="test",
            spec=explain_pb2.ExplainSpec(
                model=bundle.name, version=bundle.version, methods=resolved, tensors=bundle.headers(), seed=7, **spec
            ),
            tensors=tuple(places),
            memory=memory,
            deadline_s=deadline_s,
        )
    finally:
        os.close(memory)


@asynccontextmanager
async def pool_of(
    catalog: Catalog, observer: Any = None, *, ledger: Ledger | None = None, **settings: Any
) -> AsyncIterator[WorkerPool]:
    """A pool that is up, and gone afterwards; before its end its books must be even."""
    files = memory_files()
    pool = WorkerPool(settings=PoolSettings(**(FAST | settings)), catalog=catalog, observer=observer, ledger=ledger)
    await pool.start()
    try:
        yield pool
        await settle(pool.ledger, files=files)
    finally:
        await pool.close()
    assert pool.ledger.left == {}


async def run(pool: WorkerPool, asked: Job) -> Answer:
    """Run a job to its end."""
    answer = Answer()
    async for event in pool.run(asked):
        answer.take(event)
    return answer
