"""What a terminal and a pipe show while an explanation runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from voxplain.v1 import explain_pb2
from voxplain_client.command.live_display import LiveDisplay
from voxplain_client.command.plain_display import PlainDisplay

COMPUTING = explain_pb2.Progress.STAGE_COMPUTING
PROGRESS = explain_pb2.Progress(
    stage=COMPUTING, method_key="shapley", evaluations_done=2401, evaluations_total=2501, standard_error=0.12
)


def ended(outcome: explain_pb2.Outcome.ValueType = explain_pb2.OUTCOME_COMPLETED) -> explain_pb2.MethodResult:
    """The end of the method."""
    return explain_pb2.MethodResult(method_key="shapley", outcome=outcome, evaluations_done=2501, evaluations_planned=2501)


def bars(*events: explain_pb2.Progress | explain_pb2.MethodResult) -> str:
    """What stands on a terminal at the end, in one line for each method."""
    console = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
    display = LiveDisplay(console, ["shapley"])
    for event in events:
        display.show(event)
    display.close()
    assert isinstance(console.file, io.StringIO)
    # The last picture of the bars, which were drawn over each other.
    return [line for line in console.file.getvalue().replace("\r", "\n").splitlines() if "shapley" in line][-1]


def test_the_bar_of_a_method_that_has_ended_stays_full_when_a_late_progress_comes() -> None:
    line = bars(PROGRESS, ended(), PROGRESS)
    assert "2,501/2,501" in line
    assert "completed in" in line
    assert "error" not in line


def test_the_bar_of_a_completed_method_is_full_even_where_fewer_evaluations_were_needed() -> None:
    result = explain_pb2.MethodResult(
        method_key="shapley", outcome=explain_pb2.OUTCOME_COMPLETED, evaluations_done=1801, evaluations_planned=2501
    )
    assert "1,801/1,801" in bars(PROGRESS, result)


def test_a_method_that_was_drained_goes_on_in_the_next_call() -> None:
    assert "2,401/2,501" in bars(ended(explain_pb2.OUTCOME_DRAINED), PROGRESS)


def test_the_standard_error_is_not_shown_as_an_error() -> None:
    assert " standard error 0.12" in bars(PROGRESS)


@pytest.mark.parametrize(("outcome", "told"), [("COMPLETED", 0), ("DRAINED", 1)])
def test_lines_tell_no_progress_of_a_method_that_has_ended(outcome: str, told: int) -> None:
    console = Console(file=io.StringIO(), width=160)
    display = PlainDisplay(console)
    display.show(ended(explain_pb2.Outcome.Value(f"OUTCOME_{outcome}")))
    display.show(PROGRESS)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("2,401 of 2,501") == told
