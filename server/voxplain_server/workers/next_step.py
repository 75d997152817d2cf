"""What the lead is to do next for the method whose result is due."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from voxplain.v1 import explain_pb2
from voxplain.worker.v1 import worker_pb2

from voxplain_server.workers.method_run import Ending, MethodRun


class Action(Enum):
    """What to do."""

    WAIT = "wait"
    """Nothing; blocks or an answer are under way."""
    FINISH = "finish"
    """Tell the result without asking the lead."""
    ATTRIBUTE = "attribute"
    """Run the gradient method."""
    INTERRUPT = "interrupt"
    """Stop what is computed for the method."""
    ESTIMATE = "estimate"
    """Make something of the scores."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        action: what to do.
        ending: how the method ends, for FINISH, for INTERRUPT and for an estimate that is final.
        want: what an estimate is for.
        first_blocks: blocks that an estimate looks at; None: all that are done.
        review: whether the estimate is compared with the target error.
    """

    action: Action
    ending: Ending | None = None
    want: worker_pb2.Want.ValueType = worker_pb2.WANT_UNSPECIFIED
    first_blocks: int | None = None
    review: bool = False


WAIT = Step(Action.WAIT)


@dataclass(frozen=True, slots=True)
class Moment:
    """What a decision depends on beside the books.

    Attributes:
        now: event-loop time.
        stopping: how methods end that cannot go on (a deadline, a drain); None: they go on.
        blocks_out: whether workers still have blocks of the method.
        snapshot_pause_s: least time between snapshots; None: none wanted now.
        estimate_pause_s: least time between estimates of the standard error.
    """

    now: float
    stopping: Ending | None
    blocks_out: bool
    snapshot_pause_s: float | None
    estimate_pause_s: float


def next_step(run: MethodRun, moment: Moment) -> Step:
    """Decide the next step of the current method: a pure function of the books and the moment."""
    refusal = run.refusal()
    if refusal is not None:
        return Step(Action.FINISH, refusal)
    return _gradient_step(run, moment) if run.desk is None else _perturbation_step(run, moment)


def _gradient_step(run: MethodRun, moment: Moment) -> Step:
    stopping = moment.stopping
    if stopping is None:
        return Step(Action.ATTRIBUTE) if run.asked is None else WAIT
    if run.asked is None:
        return Step(Action.FINISH, _without_map(stopping))
    return WAIT if run.interrupted else Step(Action.INTERRUPT, stopping)


def _perturbation_step(run: MethodRun, moment: Moment) -> Step:
    desk = run.desk
    if desk is None or run.asked is not None:
        return WAIT
    review, ending = run.review_due(), run.ending()
    if review is not None:
        return Step(Action.ESTIMATE, want=worker_pb2.WANT_ERROR, first_blocks=review, review=True)
    if ending is not None:
        return Step(Action.ESTIMATE, ending, worker_pb2.WANT_FINAL, ending.first_blocks)
    if moment.stopping is not None:
        desk.stop()
        if moment.blocks_out:
            # A drain waits for the border of the blocks, which the checkpoint then has; a deadline has passed already.
            late = moment.stopping.outcome == explain_pb2.OUTCOME_DEADLINE
            return Step(Action.INTERRUPT, moment.stopping) if late and not run.interrupted else WAIT
        if desk.blocks_done:
            return Step(Action.ESTIMATE, moment.stopping, worker_pb2.WANT_FINAL)
        return Step(Action.FINISH, _without_map(moment.stopping))
    want = _early_look(run, moment)
    return WAIT if want is None else Step(Action.ESTIMATE, want=want)


def _without_map(stopping: Ending) -> Ending:
    """How a method ends that has nothing to deliver. A drained one stays DRAINED: another server is to begin it."""
    if stopping.outcome == explain_pb2.OUTCOME_DRAINED:
        return stopping
    return Ending(explain_pb2.OUTCOME_SKIPPED, stopping.reason, stopping.description)


def _early_look(run: MethodRun, moment: Moment) -> worker_pb2.Want.ValueType | None:
    """Whether a snapshot or the standard error is due. Estimates may take a tenth of the time at most."""
    if run.desk is None or run.desk.blocks_done <= run.blocks_shown:
        return None
    pause = moment.snapshot_pause_s
    if pause is not None and moment.now - run.snapshot_at >= max(pause, 10 * run.estimate_seconds):
        return worker_pb2.WANT_SNAPSHOT
    since = max(run.estimated_at, run.started_at or moment.now)
    if run.has_error and moment.now - since >= max(moment.estimate_pause_s, 20 * run.estimate_seconds):
        return worker_pb2.WANT_ERROR
    return None
