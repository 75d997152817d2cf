"""Raw tensors through a model's file: what is asked, what comes back, and the worker that is borrowed for it.

Light: runs in the front, so neither torch nor onnxruntime may be imported from here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from voxplain.errors import LimitExceeded, ServerUnavailable
from voxplain.worker.v1 import worker_pb2

from voxplain_server.models.description import model_to_json
from voxplain_server.workers.catalog import CatalogEntry
from voxplain_server.workers.faults import error_of
from voxplain_server.workers.leases import MAX_STRIKES, Supply
from voxplain_server.workers.memory import close_all
from voxplain_server.workers.pool_settings import PoolSettings
from voxplain_server.workers.worker import Worker


@dataclass(frozen=True, slots=True)
class Inference:
    """Tensors that a model's file shall answer.

    Attributes:
        entry: the model.
        inputs: every input of the file, with its place in `memory`.
        memory: descriptor of the memory file; the asker's to close.
        outputs: names of the outputs that are wanted.
    """

    entry: CatalogEntry
    inputs: tuple[worker_pb2.RawTensor, ...]
    memory: int
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inferred:
    """What the file has answered.

    Attributes:
        outputs: in the order in which they were asked for, each with its place in `memory`.
        memory: descriptor of the memory file; whoever receives it calls `close`.
        seconds: time of the pass.
        on_close: told when the memory is given back.
    """

    outputs: tuple[worker_pb2.RawTensor, ...]
    memory: int
    seconds: float
    on_close: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Give the memory back; once."""
        os.close(self.memory)
        self.on_close()


class Predictor(Protocol):
    """Runs inferences on compute processes."""

    async def infer(self, asked: Inference) -> Inferred:
        """Run one. Cancelling the task that waits for it stops the compute.

        Raises:
            voxplain.errors.VoxplainError: it cannot be run, or the workers are lost.
        """


class WorkerSource(Supply, Protocol):
    """Where a worker for one inference comes from, and goes back to."""

    async def borrow(self, entry: CatalogEntry) -> tuple[int, Worker]:
        """Wait for a worker; returns the number under which it is leased."""


class Borrower:
    """Runs one inference on a borrowed worker, and once more on another where the first is lost."""

    def __init__(self, asked: Inference, *, source: WorkerSource, settings: PoolSettings) -> None:
        self._asked = asked
        self._source = source
        self._settings = settings
        self._answer: asyncio.Future[tuple[worker_pb2.Event, list[int]]] | None = None

    async def run(self) -> tuple[worker_pb2.Inferred, int]:
        """What the worker tells, and the descriptor of its memory file, which is the caller's to close.

        Raises:
            LimitExceeded: JOB_TOO_LONG, QUEUE_FULL or OUT_OF_MEMORY.
            ServerUnavailable: WORKER_LOST or SHUTTING_DOWN.
            VoxplainError: the worker refused it.
        """
        for _ in range(MAX_STRIKES):
            try:
                event, descriptors = await self._attempt()
            except ConnectionError:
                continue
            if event.WhichOneof("event") == "inferred" and len(descriptors) == 1:
                return event.inferred, descriptors[0]
            close_all(descriptors)
            raise error_of(event.failed)
        raise ServerUnavailable("WORKER_LOST", "compute workers were lost over this call; try again", retry_after_s=5.0)

    # As Holder.

    def hear(self, worker: Worker, event: worker_pb2.Event, descriptors: list[int]) -> None:
        """As Holder.hear."""
        if self._answer is None or self._answer.done():
            close_all(descriptors)
        else:
            self._answer.set_result((event, descriptors))

    def lose(self, worker: Worker) -> None:
        """As Holder.lose."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the worker is gone"))

    async def _attempt(self) -> tuple[worker_pb2.Event, list[int]]:
        asked, most = self._asked, self._settings.max_loaded_models
        number, worker = await self._source.borrow(asked.entry)
        self._answer = answer = asyncio.get_running_loop().create_future()
        done = False
        try:
            worker.lease(number, self)
            worker.note_loaded(asked.entry.model.digest, most=most)
            command = worker_pb2.Infer(
                model_json=model_to_json(asked.entry.model, asked.entry.traits),
                max_loaded_models=most,
                inputs=asked.inputs,
                outputs=asked.outputs,
            )
            worker.send(worker_pb2.Command(infer=command), [asked.memory])
            # Not wait_for: before Python 3.12 a cancellation that meets the answer would lose its descriptors.
            await asyncio.wait([answer], timeout=self._settings.job_seconds)
            if not answer.done():
                raise LimitExceeded("JOB_TOO_LONG", "the model computed longer than this server allows")
            done = True
            told: tuple[worker_pb2.Event, list[int]] = answer.result()
            return told
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                close_all(answer.result()[1])
            raise
        finally:
            self._answer = None
            answer.cancel()
            self._source.release(worker, cancel=not done)
