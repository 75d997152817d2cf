"""Tells where a call stands, every second, and hands out checkpoints."""

from __future__ import annotations

import asyncio
from typing import Protocol

from voxplain.v1 import explain_pb2
from voxplain.worker.v1 import worker_pb2

from voxplain_server.workers.checkpoint import pack_checkpoint
from voxplain_server.workers.job import Job
from voxplain_server.workers.method_run import MethodRun, duration
from voxplain_server.workers.outbox import Outbox
from voxplain_server.workers.pool_settings import PoolSettings
from voxplain_server.workers.resume import collect, inputs_of
from voxplain_server.workers.score_board import ScoreBoard

_CHECKPOINT_BYTES_PER_S = 128 * 1024
"""Checkpoints may take so much of the stream on average."""


class Standing(Protocol):
    """What is read of a call."""

    job: Job
    runs: list[MethodRun]
    board: ScoreBoard | None
    prepared: worker_pb2.Prepared | None

    @property
    def workers(self) -> int:
        """Workers at work for it."""

    def ready(self) -> worker_pb2.Ready:
        """What the workers compute with."""


class ProgressTeller:
    """Makes Progress events of a call and decides when they are due.

    Args:
        call: the call.
        settings: the pool's.
        binding, key: of its checkpoints.
    """

    def __init__(self, call: Standing, settings: PoolSettings, *, binding: bytes, key: bytes) -> None:
        self._call = call
        self._settings = settings
        self._binding = binding
        self._key = key
        self._loop = asyncio.get_running_loop()
        self._told_at = self._began_at = self._loop.time()
        self._packed_at = self._told_at
        self._packed_bytes = 0
        self._packed_blocks = 0
        self._begun = False

    def seconds_to_next(self) -> float:
        """Until the next Progress is due."""
        return max(self._told_at + self._settings.progress_s - self._loop.time(), 0.001)

    def tell(self, outbox: Outbox) -> None:
        """Put a Progress into the outbox if it is due; the first one of a stage is due at once."""
        begun = bool(self._call.runs)
        if self.seconds_to_next() > 0.001 and begun == self._begun:
            return
        self._begun = begun
        self._told_at = self._loop.time()
        progress = self._standing()
        if self._checkpoint_due():
            progress.checkpoint = self._pack()
        outbox.tell(progress)

    def tell_checkpoint(self, outbox: Outbox) -> None:
        """Put a Progress with the latest checkpoint into the outbox, due or not."""
        progress = self._standing()
        progress.checkpoint = self._pack()
        outbox.tell(progress)

    def _standing(self) -> explain_pb2.Progress:
        runs = self._call.runs
        if not runs:
            return self._preparing()
        current = next((run for run in runs if not run.finished), runs[-1])
        progress = explain_pb2.Progress(
            stage=explain_pb2.Progress.STAGE_SENDING if current.finished else explain_pb2.Progress.STAGE_COMPUTING,
            method_key=current.key,
            evaluations_done=current.done,
            evaluations_total=current.planned,
        )
        if current.standard_error is not None:
            progress.standard_error = current.standard_error
        seconds_left = sum(self._seconds_left(run) for run in runs if not run.finished)
        progress.time_left.CopyFrom(duration(seconds_left / max(self._call.workers, 1)))
        return progress

    def _preparing(self) -> explain_pb2.Progress:
        """Before anything is planned, the estimate that was made from the spec tells the time left."""
        job = self._call.job
        left = max(job.preparing_seconds - (self._loop.time() - self._began_at), 0.0) + sum(job.estimated_seconds.values())
        progress = explain_pb2.Progress(stage=explain_pb2.Progress.STAGE_PREPARING)
        if left > 0:
            progress.time_left.CopyFrom(duration(left))
        return progress

    def _seconds_left(self, run: MethodRun) -> float:
        if run.outline.HasField("refused"):
            return 0.0
        wanted = run.planned if run.desk is None else run.desk.evaluations_in(run.desk.limit)
        left = max(wanted - run.done, 0)
        computed = run.done - run.restored
        if computed > 0 and run.desk is not None and run.compute_seconds > 0:
            return left * run.compute_seconds / computed
        if self._call.prepared is None:
            return 0.0
        estimated = self._call.prepared.prediction.plans[run.index].estimated_duration.ToNanoseconds() / 1e9
        return estimated * left / max(run.planned, 1)

    def _checkpoint_due(self) -> bool:
        if self._call.board is None or self._blocks() == self._packed_blocks:
            return False
        pause = max(self._settings.checkpoint_s, self._packed_bytes / _CHECKPOINT_BYTES_PER_S)
        return self._loop.time() - self._packed_at >= pause

    def _pack(self) -> bytes:
        call = self._call
        if call.board is None or call.prepared is None:
            return b""
        self._packed_at, self._packed_blocks = self._loop.time(), self._blocks()
        checkpoint = collect(call.runs, call.board, inputs=inputs_of(call.prepared, call.ready()))
        most = self._settings.checkpoint_bytes
        packed = pack_checkpoint(checkpoint, binding=self._binding, key=self._key, max_bytes=most)
        # One that has grown too long cost as much as the longest: packing it anew every time would be for nothing.
        self._packed_bytes = len(packed) or most
        return packed

    def _blocks(self) -> int:
        return sum(run.desk.blocks_done for run in self._call.runs if run.desk is not None)
