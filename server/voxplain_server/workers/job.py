"""The seam between the front and the compute processes: a job goes in, events come out.

Light: the front imports this, so neither torch nor onnxruntime may be imported here.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol

from voxplain.v1 import explain_pb2, tensor_pb2

from voxplain_server.workers.catalog import CatalogEntry


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where the bytes of one tensor lie in a job's memory.

    Attributes:
        header: what the client declared.
        offset: first byte in the memfd, a multiple of 64.
        size: bytes.
    """

    header: tensor_pb2.Tensor
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Job:
    """One explanation, accepted and complete.

    Attributes:
        explanation_id: opaque, for logs and the record.
        spec: the request with every method and parameter resolved, model and version filled in.
        tensors: the declared tensors and where their bytes lie.
        memory: descriptor of the memfd that holds them; owned and closed by the front when the call ends.
        cautions: what the front already knows to limit the answer.
        estimated_seconds: by method key, from counted work and measured rates.
        preparing_seconds: estimate of what comes before the first evaluation.
        deadline_s: seconds of event-loop time (`loop.time()`) at which the soft deadline passes; None: there is none.
        entry: the model that the client was told of; None: what the catalogue has under the name and version of the spec.
    """

    explanation_id: str
    spec: explain_pb2.ExplainSpec
    tensors: tuple[TensorPlace, ...]
    memory: int
    cautions: tuple[explain_pb2.Caution, ...] = ()
    estimated_seconds: dict[str, float] = field(default_factory=dict)
    preparing_seconds: float = 0.0
    deadline_s: float | None = None
    entry: CatalogEntry | None = None


@dataclass(frozen=True, slots=True)
class MapReady:
    """A map in shared memory.

    Attributes:
        header: the announcement; its size_bytes is filled in.
        memory: descriptor of a memfd with the bytes from 0 on; whoever receives the event calls `close`.
        sha256: of the bytes, lower-case hexadecimal; empty for snapshots.
        on_close: told when the memory is given back.
    """

    header: explain_pb2.Map
    memory: int
    sha256: str
    on_close: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Give the memory back; once."""
        os.close(self.memory)
        self.on_close()


JobEvent = explain_pb2.Prediction | explain_pb2.Progress | MapReady | explain_pb2.MethodResult | explain_pb2.ExplanationRecord
"""In the order of the contract; an ExplanationRecord is the last. Map digests are already in the record."""


class Runner(Protocol):
    """Runs jobs on compute processes."""

    @property
    def queue_length(self) -> int:
        """Jobs that wait for a worker."""

    def run(self, job: Job) -> AsyncIterator[JobEvent]:
        """Run one job. Closing the iterator (aclose, or cancelling the task that reads it) stops the compute.

        Queued jobs yield Progress with STAGE_QUEUED at once and then every second; while a worker is inside a long step the
        front's side of the runner still yields Progress every second.

        Raises:
            voxplain.errors.VoxplainError: the job as a whole failed (a tensor holds NaN, the workers are lost, ...).
        """

    async def drain(self, grace_s: float) -> None:
        """Take no new jobs, let running ones end within the grace, then end them DRAINED."""

    async def close(self) -> None:
        """End every worker process."""
