"""The deadline of a call: refused before a byte is reserved where it cannot be met, or met with what there is by then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest
from voxplain.errors import DeadlinePassed
from voxplain.v1 import explain_pb2, method_pb2
from voxplain_server.service.deadline import check_deadline, stop_at
from voxplain_server.workers.expected_time import ExpectedTime

from tests.server.service.front import case_messages, good_spec, running_front, spec_message

HOUR = ExpectedTime(methods={"occlusion": 3600.0}, preparing=1.0, transfer=1.0)
Spec = explain_pb2.ExplainSpec


def check(spec: Spec, seconds_left: float | None) -> None:
    check_deadline(spec, HOUR, {"occlusion": 1000}, seconds_left=seconds_left)


@pytest.mark.parametrize("seconds_left", [None, 3603.0])
def test_a_call_that_has_time_enough_is_let_in(seconds_left: float | None) -> None:
    check(Spec(), seconds_left)


def test_a_call_whose_estimate_exceeds_its_deadline_is_refused_with_the_remedy() -> None:
    with pytest.raises(DeadlinePassed, match="about 3602 s") as refused:
        check(Spec(), 3600.0)
    assert (refused.value.reason, refused.value.field) == ("DEADLINE_TOO_SHORT", "budget.soft_deadline")


@pytest.mark.parametrize(
    "allow",
    [
        lambda spec: setattr(spec.budget.soft_deadline, "seconds", 10_000),
        lambda spec: setattr(spec.budget, "target_standard_error", 0.1),
        lambda spec: setattr(spec.budget, "max_evaluations", 10),
        lambda spec: setattr(spec, "checkpoint", b"x"),
    ],
    ids=["a soft deadline", "a target error", "a small budget", "a checkpoint"],
)
def test_a_call_that_may_stop_early_is_let_in(allow: Callable[[Spec], object]) -> None:
    spec = Spec()
    allow(spec)
    check(spec, 60.0)


def test_the_compute_stops_early_enough_for_the_deadline_of_the_call() -> None:
    spec = Spec()
    assert stop_at(spec, now=5.0, seconds_left=10.0) is None
    spec.budget.soft_deadline.seconds = 30
    assert stop_at(spec, now=5.0, seconds_left=None) == 35.0
    assert stop_at(spec, now=5.0, seconds_left=1000.0) == 35.0
    assert stop_at(spec, now=5.0, seconds_left=20.0) == pytest.approx(21.0)
    assert stop_at(spec, now=5.0, seconds_left=3.0) == pytest.approx(7.0)
    assert stop_at(spec, now=5.0, seconds_left=1.0) == pytest.approx(5.5)


def long_spec() -> Spec:
    spec = good_spec()
    del spec.methods[:]
    spec.methods.add().shapley_value_sampling.CopyFrom(method_pb2.ShapleyValueSampling(permutations=100_000))
    return spec


async def test_a_call_without_time_is_refused_unstarted_and_told_what_it_takes() -> None:
    async with running_front() as front:
        call = front.open(timeout=60)
        await call.write(spec_message(long_spec()))
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "soft deadline" in await call.details()
        assert front.ledger.acquired["slots"] == 0
        assert front.runner.jobs == []


async def test_a_soft_deadline_beyond_the_deadline_of_the_call_is_drawn_in() -> None:
    spec = long_spec()
    spec.budget.soft_deadline.seconds = 10_000
    async with running_front() as front:
        call = front.open(timeout=60)
        for message in [spec_message(spec), *case_messages()]:
            await call.write(message)
        await call.done_writing()
        assert [each async for each in call]
        (job,) = front.runner.jobs
        assert job.deadline_s is not None
        assert job.deadline_s < asyncio.get_running_loop().time() + 60
