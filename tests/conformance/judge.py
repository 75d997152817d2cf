"""Whether what a client told is what its scenario expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.conformance.scenario import Expectation

Event = dict[str, Any]
Digests = Mapping[str, str]
"""SHA-256 of every final map, by what names it."""


def judge(expect: Expectation, events: Sequence[Event], reference: Digests | None) -> list[str]:
    """What is wrong, in words; nothing where all is right.

    Args:
        expect: what the scenario says.
        events: what the driver told.
        reference: digests that the Python client got; None where this is the Python client.
    """
    faults = [*_order(expect, events), *_ending(expect, events), *_resuming(expect, events)]
    results = {each["method_key"]: _outcome(each) for each in events if each["event"] == "result"}
    if expect.error is None and results != dict(expect.outcomes):
        faults.append(f"outcomes {results}, not {dict(expect.outcomes)}")
    if expect.progress and not _of("progress", events):
        faults.append("no progress")
    if expect.snapshots and not any(each["snapshot"] for each in _of("map", events)):
        faults.append("no snapshot")
    if reference is not None and digests(events) != reference:
        faults.append("its maps are not those of the Python client")
    times = [each["t"] for each in events]
    if times != sorted(times):
        faults.append("time runs backwards")
    return faults


def digests(events: Sequence[Event]) -> dict[str, str]:
    """SHA-256 of every final map."""
    maps = [each for each in _of("map", events) if not each["snapshot"]]
    return {f"{each['method_key']} {each['quantity']} {'+'.join(each['modalities'])}": each["sha256"] for each in maps}


def order_of(events: Sequence[Event]) -> list[str]:
    """The events without those that may come at any time."""
    return [
        _name(each) for each in events if each["event"] not in ("progress", "resuming", "error") and not each.get("snapshot")
    ]


def _order(expect: Expectation, events: Sequence[Event]) -> list[str]:
    order = order_of(events)
    wanted = list(expect.order)
    right = order == wanted[: len(order)] if expect.prefix else order == wanted
    return [] if right else [f"events {order}, not {wanted}"]


def _ending(expect: Expectation, events: Sequence[Event]) -> list[str]:
    errors = _of("error", events)
    if expect.error is None:
        return [f"ended with {errors}"] if errors else []
    if len(errors) != 1 or events[-1] is not errors[0]:
        return ["did not end with an error"]
    wrong = {key: errors[0].get(key) for key, value in expect.error.items() if errors[0].get(key) != value}
    return [f"error has {wrong}, not {dict(expect.error)}"] if wrong else []


def _resuming(expect: Expectation, events: Sequence[Event]) -> list[str]:
    resumed = _of("resuming", events)
    if expect.resumed is None:
        return [f"resumed: {resumed}"] if resumed else []
    wanted = dict(expect.resumed)
    least = wanted.pop("wait_s", 0.0)
    fits = [each for each in resumed if wanted.items() <= each.items() and each["wait_s"] >= least]
    return [] if fits else [f"no resuming like {dict(expect.resumed)} in {resumed}"]


def _of(kind: str, events: Sequence[Event]) -> list[Event]:
    return [each for each in events if each["event"] == kind]


def _name(event: Event) -> str:
    return f"{event['event']} {event['method_key']}" if "method_key" in event else str(event["event"])


def _outcome(result: Event) -> str:
    return f"{result['outcome']}: {result['reason']}" if result["reason"] else str(result["outcome"])
