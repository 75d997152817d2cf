"""The ledger: what goes in comes out, whatever happens between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxplain.errors import LimitExceeded, ServerUnavailable
from voxplain_server.observe.log import Log
from voxplain_server.observe.metrics import Metrics
from voxplain_server.observe.watch import Watch
from voxplain_server.service.admission import Admission


def ledger(*, max_bytes: int = 100, workers: int = 1, queue_length: int = 2) -> tuple[Admission, Metrics]:
    metrics = Metrics()
    watch = Watch(metrics, Log())
    return Admission(max_bytes=max_bytes, workers=workers, queue_length=queue_length, observer=watch), metrics


def test_a_call_holds_its_bytes_and_slot_until_it_ends() -> None:
    admission, metrics = ledger()
    with admission.admit(60) as ticket:
        assert (ticket.reserved_bytes, ticket.ahead) == (60, 0)
        assert (admission.reserved_bytes, admission.calls, admission.ahead) == (60, 1, 1)
        assert metrics.registry.get_sample_value("voxplain_admitted_bytes") == 60
    assert (admission.reserved_bytes, admission.calls) == (0, 0)
    assert metrics.registry.get_sample_value("voxplain_admitted_bytes") == 0


def test_a_call_that_fails_leaves_nothing_behind() -> None:
    admission, _ = ledger()
    with pytest.raises(ZeroDivisionError), admission.admit(60):
        raise ZeroDivisionError
    assert (admission.reserved_bytes, admission.calls) == (0, 0)


@pytest.mark.parametrize(
    ("held", "size", "reason", "retry"),
    [([], 101, "CALL_TOO_LARGE", None), ([60], 50, "MEMORY_EXHAUSTED", 5.0), ([1, 1, 1], 1, "QUEUE_FULL", 5.0)],
)
def test_who_does_not_fit_is_refused_at_once(held: list[int], size: int, reason: str, retry: float | None) -> None:
    admission, metrics = ledger()
    tickets = [admission.admit(each) for each in held]
    for ticket in tickets:
        ticket.__enter__()
    with pytest.raises(LimitExceeded) as refused, admission.admit(size):
        pass
    assert (refused.value.reason, refused.value.retry_after_s) == (reason, retry)
    assert admission.calls == len(held)
    assert metrics.registry.get_sample_value("voxplain_admission_rejections_total", {"reason": reason}) == 1
    for ticket in tickets:
        ticket.__exit__(None, None, None)
    with admission.admit(100):
        assert admission.reserved_bytes == 100


def test_nobody_comes_in_while_stopping() -> None:
    admission, _ = ledger()
    admission.close()
    with pytest.raises(ServerUnavailable) as refused, admission.admit(1):
        pass
    assert refused.value.reason == "SHUTTING_DOWN"
    assert refused.value.retry_after_s


def test_the_place_in_the_queue_counts_workers() -> None:
    admission, _ = ledger(workers=2)
    with admission.admit(1) as first, admission.admit(1) as second, admission.admit(1) as third:
        assert [first.ahead, second.ahead, third.ahead] == [0, 0, 1]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 120)), max_size=40))
def test_the_ledger_never_exceeds_its_bounds_and_always_returns_to_zero(steps: list[tuple[bool, int]]) -> None:
    admission, _ = ledger()
    inside = []
    for enter, number in steps:
        if enter:
            ticket = admission.admit(number)
            try:
                ticket.__enter__()
            except LimitExceeded:
                continue
            inside.append(ticket)
        elif inside:
            inside.pop(number % len(inside)).__exit__(None, None, None)
        assert 0 <= admission.reserved_bytes <= 100
        assert 0 <= admission.calls <= 3
    for ticket in inside:
        ticket.__exit__(None, None, None)
    assert (admission.reserved_bytes, admission.calls) == (0, 0)


def test_a_call_without_a_slot_is_refused_before_anything_of_it_is_known() -> None:
    admission, metrics = ledger(workers=1, queue_length=1)
    admission.check_room()
    with admission.admit(1), admission.admit(1):
        with pytest.raises(LimitExceeded) as refused:
            admission.check_room()
        assert (refused.value.reason, refused.value.retry_after_s) == ("QUEUE_FULL", 5.0)
        labels = {"reason": "QUEUE_FULL"}
        assert metrics.registry.get_sample_value("voxplain_admission_rejections_total", labels) == 1
    admission.check_room()
    admission.close()
    with pytest.raises(ServerUnavailable):
        admission.check_room()
