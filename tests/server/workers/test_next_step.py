"""What the lead does next, from the books alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from voxplain.v1 import explain_pb2
from voxplain.worker.v1 import worker_pb2
from voxplain_server.workers.method_run import Ending, MethodRun
from voxplain_server.workers.next_step import WAIT, Action, Moment, next_step

CALM = Moment(now=100.0, stopping=None, blocks_out=False, snapshot_pause_s=None, estimate_pause_s=1e9)
DEADLINE = Ending(explain_pb2.OUTCOME_DEADLINE, "SOFT_DEADLINE")
LATE = replace(CALM, stopping=DEADLINE)
DRAINED = replace(CALM, stopping=Ending(explain_pb2.OUTCOME_DRAINED, "SHUTTING_DOWN"))
SKIPPED = explain_pb2.OUTCOME_SKIPPED


def gradient(evaluations: int = 1, budget: explain_pb2.Budget | None = None) -> MethodRun:
    outline = worker_pb2.Outline(gradient=True, evaluations=evaluations)
    return MethodRun(index=0, key="g", name="gradient", outline=outline, budget=budget or explain_pb2.Budget())


def perturbation(blocks: int = 40, budget: explain_pb2.Budget | None = None) -> MethodRun:
    outline = worker_pb2.Outline(evaluations=blocks, starts=list(range(blocks)), stops=[start + 1 for start in range(blocks)])
    return MethodRun(index=0, key="p", name="occlusion", outline=outline, budget=budget or explain_pb2.Budget())


def done(run: MethodRun, blocks: int) -> MethodRun:
    assert run.desk is not None
    for block in range(blocks):
        run.desk.finish(block)
    return run


def test_a_gradient_method_is_attributed_once() -> None:
    run = gradient()
    assert next_step(run, CALM).action is Action.ATTRIBUTE
    run.asked = worker_pb2.WANT_FINAL
    assert next_step(run, CALM) == WAIT


def test_a_gradient_method_under_way_is_interrupted_at_the_deadline_and_without_a_map_it_is_skipped() -> None:
    run = gradient()
    run.asked = worker_pb2.WANT_FINAL
    assert next_step(run, LATE).action is Action.INTERRUPT
    run.interrupted = True
    assert next_step(run, LATE) == WAIT
    run.asked = None
    ending = next_step(run, LATE).ending
    assert ending is not None
    assert (ending.outcome, ending.reason) == (SKIPPED, "SOFT_DEADLINE")


def test_a_gradient_method_that_has_not_begun_is_skipped_at_the_deadline() -> None:
    ending = next_step(gradient(), LATE).ending
    assert ending is not None
    assert (ending.outcome, ending.reason) == (SKIPPED, "SOFT_DEADLINE")


@pytest.mark.parametrize("run", [gradient(), perturbation()], ids=["gradient", "perturbation"])
def test_a_method_that_has_not_begun_is_drained_and_not_skipped(run: MethodRun) -> None:
    step = next_step(run, DRAINED)
    assert (step.action, step.ending) == (Action.FINISH, DRAINED.stopping)


def test_a_gradient_method_that_exceeds_the_budget_is_skipped() -> None:
    ending = next_step(gradient(50, explain_pb2.Budget(max_evaluations=49)), CALM).ending
    assert ending is not None
    assert (ending.outcome, ending.reason) == (SKIPPED, "BUDGET_TOO_SMALL")


def test_a_whole_plan_is_estimated_as_completed() -> None:
    step = next_step(done(perturbation(), 40), CALM)
    assert (step.action, step.want, step.first_blocks) == (Action.ESTIMATE, worker_pb2.WANT_FINAL, None)
    assert step.ending == Ending(explain_pb2.OUTCOME_COMPLETED)


def test_the_deadline_interrupts_blocks_under_way_once_and_takes_what_is_done() -> None:
    run = done(perturbation(), 3)
    assert next_step(run, replace(LATE, blocks_out=True)).action is Action.INTERRUPT
    run.interrupted = True
    assert next_step(run, replace(LATE, blocks_out=True)) == WAIT
    assert run.desk is not None
    assert run.desk.take() is None
    step = next_step(run, LATE)
    assert (step.action, step.ending, step.first_blocks) == (Action.ESTIMATE, DEADLINE, None)


def test_a_drain_waits_for_blocks_under_way() -> None:
    assert next_step(done(perturbation(), 3), replace(DRAINED, blocks_out=True)) == WAIT


def test_a_method_that_failed_is_finished_without_a_map() -> None:
    run = done(perturbation(), 40)
    run.failure = worker_pb2.Failed(reason="SCORE_NOT_FINITE", message="not finite")
    step = next_step(run, CALM)
    assert step.action is Action.FINISH
    assert step.ending is not None
    assert (step.ending.outcome, step.ending.reason) == (explain_pb2.OUTCOME_FAILED, "SCORE_NOT_FINITE")


def test_the_error_is_reviewed_at_fixed_blocks_however_many_are_done() -> None:
    for ahead in (3, 4, 40):
        run = done(perturbation(budget=explain_pb2.Budget(target_standard_error=0.1)), ahead)
        step = next_step(run, CALM)
        assert (step.action, step.want, step.first_blocks, step.review) == (Action.ESTIMATE, worker_pb2.WANT_ERROR, 3, True)
        run.ask(step.want, ending=step.ending, review=step.review)
        assert next_step(run, CALM) == WAIT
        run.note_estimate(0.05, seconds=0.0, now=0.0)
        final = next_step(run, CALM)
        assert final.ending is not None
        assert final.ending.outcome == explain_pb2.OUTCOME_TARGET_ERROR_REACHED
        assert final.first_blocks == 3


def test_an_error_above_the_target_goes_on_to_the_next_review() -> None:
    run = done(perturbation(budget=explain_pb2.Budget(target_standard_error=0.1)), 6)
    for expected in (3, 5):
        step = next_step(run, CALM)
        assert step.first_blocks == expected
        run.ask(step.want, ending=None, review=True)
        run.note_estimate(0.5, seconds=0.0, now=0.0)
    assert next_step(run, CALM) == WAIT


def test_early_looks_keep_their_pause_and_need_something_new() -> None:
    run = done(perturbation(), 3)
    often = replace(CALM, snapshot_pause_s=1.0)
    step = next_step(run, often)
    assert (step.action, step.want) == (Action.ESTIMATE, worker_pb2.WANT_SNAPSHOT)
    run.ask(step.want, ending=None, review=False)
    run.note_estimate(None, seconds=0.5, now=often.now)
    assert run.snapshot_at == often.now
    assert next_step(run, replace(often, now=200.0)) == WAIT
    done(run, 4)
    # The pause counts from when the maps left, and a look that took half a second is not taken again for five.
    assert next_step(run, replace(often, now=104.0)) == WAIT
    assert next_step(run, replace(often, now=106.0)).want == worker_pb2.WANT_SNAPSHOT
