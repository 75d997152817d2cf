"""What is told of the time that is left."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from voxplain.v1 import explain_pb2
from voxplain.worker.v1 import worker_pb2
from voxplain_server.workers.checkpoint import Checkpoint, MethodScores
from voxplain_server.workers.job import Job
from voxplain_server.workers.method_run import MethodRun
from voxplain_server.workers.outbox import Outbox
from voxplain_server.workers.pool_settings import PoolSettings
from voxplain_server.workers.progress import ProgressTeller
from voxplain_server.workers.resume import restore
from voxplain_server.workers.score_board import ScoreBoard

BLOCKS, PLANNED_S = 100, 50


@dataclass(slots=True, eq=False)
class Standing:
    """A call with one method of 100 evaluations, planned to take 50 seconds."""

    runs: list[MethodRun]
    prepared: worker_pb2.Prepared | None
    board: ScoreBoard | None = None
    job: Job = field(default_factory=lambda: Job("e", explain_pb2.ExplainSpec(), (), -1, estimated_seconds={"o": 1e6}))
    workers: int = 1

    def ready(self) -> worker_pb2.Ready:
        return worker_pb2.Ready()


def standing() -> Standing:
    outline = worker_pb2.Outline(evaluations=BLOCKS, starts=range(BLOCKS), stops=range(1, BLOCKS + 1))
    run = MethodRun(index=0, key="o", name="occlusion", outline=outline, budget=explain_pb2.Budget())
    plan = explain_pb2.MethodPlan(method_key="o", estimated_duration=Duration(seconds=PLANNED_S))
    return Standing([run], worker_pb2.Prepared(prediction=explain_pb2.Prediction(plans=[plan])))


async def time_left(call: Standing) -> float:
    outbox = Outbox()
    ProgressTeller(call, PoolSettings(progress_s=0.0), binding=b"", key=b"").tell(outbox)
    told = await outbox.next()
    assert isinstance(told, explain_pb2.Progress)
    return told.time_left.ToNanoseconds() / 1e9


def restored(call: Standing, blocks: int) -> None:
    rows = np.array([[block, block + 1, 0] for block in range(blocks)], dtype=np.uint64)
    board = ScoreBoard.create([BLOCKS])
    assert restore(Checkpoint(b"", {"o": MethodScores(rows, np.zeros(blocks))}), call.runs, board) == blocks
    board.close()


async def test_the_plan_of_this_case_tells_the_time_before_anything_is_done() -> None:
    assert await time_left(standing()) == pytest.approx(PLANNED_S)


async def test_what_a_checkpoint_brought_took_no_time_here_and_tells_nothing_of_what_is_left() -> None:
    call = standing()
    restored(call, 60)
    assert await time_left(call) == pytest.approx(0.4 * PLANNED_S)


async def test_what_was_computed_here_tells_the_time_for_the_rest() -> None:
    call = standing()
    restored(call, 60)
    assert call.runs[0].desk is not None
    for block in range(60, 70):
        call.runs[0].desk.finish(block)
    call.runs[0].compute_seconds = 20.0
    assert await time_left(call) == pytest.approx(30 * 2.0)
