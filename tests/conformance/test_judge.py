"""The judge of the conformance suite: it must say no where a client is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.judge import digests, judge
from tests.conformance.scenario import Expectation, read_scenarios

MAP = {"method_key": "gradient", "quantity": "ATTRIBUTION", "modalities": ["t1"], "snapshot": False, "sha256": "aa"}
RIGHT: list[dict[str, Any]] = [
    {"event": "accepted"},
    {"event": "progress"},
    {"event": "map", **MAP},
    {"event": "result", "method_key": "gradient", "outcome": "COMPLETED", "reason": ""},
    {"event": "record"},
]
EXPECT = Expectation(("accepted", "map gradient", "result gradient", "record"), outcomes={"gradient": "COMPLETED"})


def timed(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events with times that run forwards."""
    return [{**event, "t": float(place)} for place, event in enumerate(events)]


def test_a_client_that_tells_what_is_expected_passes() -> None:
    assert judge(EXPECT, timed(RIGHT), digests(RIGHT)) == []


@pytest.mark.parametrize("place", range(len(RIGHT)))
def test_every_missing_event_is_seen(place: int) -> None:
    assert judge(EXPECT, timed(RIGHT[:place] + RIGHT[place + 1 :]), None)


def test_other_bytes_than_those_of_the_python_client_are_seen() -> None:
    changed = [*RIGHT[:2], {**RIGHT[2], "sha256": "bb"}, *RIGHT[3:]]
    assert judge(EXPECT, timed(changed), digests(RIGHT)) == ["its maps are not those of the Python client"]


def test_another_outcome_an_error_and_a_resuming_are_seen() -> None:
    failed = [*RIGHT[:3], {**RIGHT[3], "outcome": "FAILED", "reason": "X"}, RIGHT[4]]
    assert "FAILED: X" in judge(EXPECT, timed(failed), None)[0]
    assert judge(EXPECT, timed([*RIGHT, {"event": "error"}]), None)
    assert judge(EXPECT, timed([{"event": "resuming"}, *RIGHT]), None)


def test_an_expected_error_must_come_with_its_fields_and_last() -> None:
    expect = replace(EXPECT, error={"reason": "X", "field": "model"}, order=("accepted",), outcomes={})
    error = {"event": "error", "reason": "X", "field": "model"}
    assert judge(expect, timed([*RIGHT[:2], error]), None) == []
    assert judge(expect, timed([*RIGHT[:2], {**error, "field": ""}]), None)
    assert judge(expect, timed([error, *RIGHT[:2]]), None)
    assert judge(expect, timed(RIGHT[:2]), None)


def test_a_resuming_that_waited_less_than_told_is_seen() -> None:
    expect = replace(EXPECT, resumed={"reason": "QUEUE_FULL", "wait_s": 5})
    resuming = {"event": "resuming", "reason": "QUEUE_FULL", "wait_s": 5.0}
    assert judge(expect, timed([resuming, *RIGHT]), None) == []
    assert judge(expect, timed([{**resuming, "wait_s": 1.0}, *RIGHT]), None)
    assert judge(expect, timed(RIGHT), None)


def test_the_scenarios_can_be_read_and_have_names_of_their_own() -> None:
    scenarios = read_scenarios()
    assert len({each.name for each in scenarios}) == len(scenarios) >= 12
