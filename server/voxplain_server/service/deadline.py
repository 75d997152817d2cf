"""Whether a call can be done within the deadline that its client set on it, and when it has to stop to be heard in time."""

from __future__ import annotations

from voxplain.errors import DeadlinePassed
from voxplain.v1 import explain_pb2

from voxplain_server.workers.expected_time import ExpectedTime

FAREWELL_SHARE, FAREWELL_AT_MOST = 0.2, 0.5
FAREWELL_SECONDS = (1.0, 15.0)
"""What of the time left is kept for making and sending the maps so far: a fifth, at least and at most so many seconds, and
never more than half of it. Half a second was measured for 2,000 Shapley walks of a tiny model on a busy core."""


def check_deadline(
    spec: explain_pb2.ExplainSpec, expected: ExpectedTime, evaluations: dict[str, int], *, seconds_left: float | None
) -> None:
    """Refuse what would be cut off in the middle: its compute would be for nothing.

    A call that may stop early by itself (a soft deadline, a target error) or goes on from a checkpoint is let in.

    Args:
        spec: a resolved request.
        expected: what it takes.
        evaluations: of each method, by key.
        seconds_left: until the deadline of the call; None: it has none.

    Raises:
        DeadlinePassed: DEADLINE_TOO_SHORT.
    """
    budget = spec.budget
    stops_by_itself = budget.HasField("soft_deadline") or budget.HasField("target_standard_error")
    if seconds_left is None or stops_by_itself or spec.checkpoint:
        return
    needed = expected.preparing + expected.transfer
    for key, seconds in expected.methods.items():
        of_it = min(budget.max_evaluations / max(evaluations[key], 1), 1.0) if budget.HasField("max_evaluations") else 1.0
        needed += seconds * of_it
    if needed > seconds_left:
        raise DeadlinePassed(
            "DEADLINE_TOO_SHORT",
            f"this takes about {needed:.0f} s, longer than the deadline of the call: allow more time, ask for less, or set a "
            "soft deadline to get the maps as far as they come",
            field="budget.soft_deadline",
        )


def stop_at(spec: explain_pb2.ExplainSpec, *, now: float, seconds_left: float | None) -> float | None:
    """When the compute stops, if its client asked for a soft deadline; early enough for the call's own deadline.

    Args:
        spec: the request.
        now: event-loop time at which the tensors are complete.
        seconds_left: until the deadline of the call; None: it has none.

    Returns:
        Event-loop time; None: there is no soft deadline.
    """
    if not spec.budget.HasField("soft_deadline"):
        return None
    asked = now + spec.budget.soft_deadline.ToNanoseconds() / 1e9
    if seconds_left is None:
        return asked
    least, most = FAREWELL_SECONDS
    farewell = min(max(FAREWELL_SHARE * seconds_left, least), most, FAREWELL_AT_MOST * seconds_left)
    return min(asked, now + seconds_left - farewell)
