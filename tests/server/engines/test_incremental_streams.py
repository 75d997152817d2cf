"""Streams of one core: order, faults, and stopping."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from voxplain_server.engines.compute_streams import ComputeStreams


def nothing() -> None:
    return


def test_results_come_in_the_order_of_the_items() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        return number * number

    assert list(ComputeStreams(3).map(slow_first, range(9), ask=nothing)) == [number * number for number in range(9)]


def test_streams_compute_on_one_core_each_and_leave_the_caller_all() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert set(ComputeStreams(2).map(lambda _: torch.get_num_threads(), range(6), ask=nothing)) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_work_is_done_side_by_side() -> None:
    meeting = threading.Barrier(2, timeout=20)
    assert list(ComputeStreams(2).map(lambda _: meeting.wait() >= 0, range(2), ask=nothing)) == [True, True]


def test_a_fault_of_the_work_is_the_callers() -> None:
    def work(number: int) -> int:
        if number == 2:
            raise ZeroDivisionError
        return number

    with pytest.raises(ZeroDivisionError):
        list(ComputeStreams(2).map(work, range(5), ask=nothing))


def test_what_asks_to_stop_ends_all_once_the_work_under_way_has_ended() -> None:
    begun, ended = [], []
    asked = threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        asked.wait(20)
        time.sleep(0.2)
        ended.append(number)

    def ask() -> None:
        if begun:
            asked.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(ComputeStreams(1).map(work, range(50), ask=ask))
    assert 0 < len(begun) < 5
    assert begun == ended


def test_the_caller_is_asked_while_it_waits() -> None:
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1

    list(ComputeStreams(1).map(lambda _: time.sleep(0.45), range(1), ask=ask))
    assert asked >= 3
