"""From the books of a call to a checkpoint, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from voxplain.errors import CheckpointRefused
from voxplain.worker.v1 import worker_pb2

from voxplain_server.workers.checkpoint import Checkpoint, MethodScores, bind_inputs
from voxplain_server.workers.method_run import MethodRun
from voxplain_server.workers.score_board import ScoreBoard


def inputs_of(prepared: worker_pb2.Prepared, ready: worker_pb2.Ready) -> bytes:
    """Digest of the tensors that a worker read, and of the packages it computes with."""
    return bind_inputs({each.tensor.id: each.sha256 for each in prepared.digests}, dict(ready.package_versions))


def cuts_of(prepared: worker_pb2.Prepared) -> list[tuple[int, int, list[int], list[int]]]:
    """How the work is cut, and how much of it is shared, by method: two workers that plan one call must agree."""
    return [(each.evaluations, each.saved, list(each.starts), list(each.stops)) for each in prepared.outlines]


def collect(runs: Sequence[MethodRun], board: ScoreBoard, *, inputs: bytes) -> Checkpoint:
    """Everything that is done by now."""
    methods = {}
    for run in runs:
        if run.desk is None or run.desk.blocks_done == 0:
            continue
        done = [block for block in range(len(run.desk.starts)) if run.desk.is_done(block)]
        rows = [(run.desk.starts[block], run.desk.stops[block], run.desk.saved_by(block)) for block in done]
        scores = board.scores(run.index)
        methods[run.key] = MethodScores(
            blocks=np.array(rows, dtype=np.uint64),
            scores=np.concatenate([scores[start:stop] for start, stop, _ in rows]),
        )
    return Checkpoint(inputs=inputs, methods=methods)


def restore(checkpoint: Checkpoint, runs: Sequence[MethodRun], board: ScoreBoard) -> int:
    """Put the scores of a checkpoint on the board. Returns the evaluations that need not be repeated.

    Raises:
        CheckpointRefused: CHECKPOINT_INVALID; its blocks are not those of the plans.
    """
    restored = 0
    by_key = {run.key: run for run in runs}
    for key, method in checkpoint.methods.items():
        run = by_key.get(key)
        if run is None or run.desk is None:
            raise _refusal()
        block_at = {start: block for block, start in enumerate(run.desk.starts)}
        at = 0
        for start, stop, saved in method.blocks.tolist():
            block = block_at.get(start, -1)
            if block < 0 or run.desk.stops[block] != stop or at + stop - start > method.scores.size:
                raise _refusal()
            board.scores(run.index)[start:stop] = method.scores[at : at + stop - start]
            board.done(run.index)[start:stop] = True
            run.desk.finish(block, saved=min(saved, stop - start))
            at += stop - start
        run.restored = at
        restored += at
    return restored


def _refusal() -> CheckpointRefused:
    told = "the checkpoint does not fit the plans of this request; leave it out to start anew"
    return CheckpointRefused("CHECKPOINT_INVALID", told, field="checkpoint")
