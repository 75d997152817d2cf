"""Which block comes next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxplain_server.workers.block_desk import REVIEWS, BlockDesk, blocks_within, review_points

STARTS, STOPS = (0, 4, 8), (4, 8, 10)


def test_blocks_are_handed_out_in_their_order_and_once() -> None:
    desk = BlockDesk(STARTS, STOPS)
    assert [desk.take() for _ in range(4)] == [0, 1, 2, None]


def test_blocks_of_a_lost_worker_come_first() -> None:
    desk = BlockDesk(STARTS, STOPS)
    desk.take(), desk.take()
    desk.give_back([1, 0])
    assert [desk.take() for _ in range(4)] == [0, 1, 2, None]


def test_a_block_done_meanwhile_is_not_handed_out_again() -> None:
    desk = BlockDesk(STARTS, STOPS)
    desk.take()
    desk.give_back([0])
    assert desk.finish(0, saved=1)
    assert not desk.finish(0)
    assert desk.take() == 1
    assert (desk.evaluations_done, desk.saved_in()) == (4, 1)


def test_the_prefix_waits_for_its_gaps() -> None:
    desk = BlockDesk(STARTS, STOPS)
    desk.finish(0)
    desk.finish(2)
    assert (desk.prefix, desk.complete) == (1, False)
    desk.finish(1)
    assert (desk.prefix, desk.complete) == (3, True)


def test_blocks_beyond_the_limit_are_not_wanted() -> None:
    desk = BlockDesk(STARTS, STOPS, limit=2)
    assert [desk.take() for _ in range(3)] == [0, 1, None]
    desk.finish(0)
    desk.finish(1)
    assert desk.complete


@pytest.mark.parametrize(("evaluations", "blocks"), [(0, 0), (3, 0), (4, 1), (9, 2), (10, 3), (99, 3)])
def test_a_budget_is_cut_to_whole_blocks(evaluations: int, blocks: int) -> None:
    assert blocks_within(STARTS, STOPS, evaluations) == blocks


@given(st.integers(0, 5000))
def test_reviews_are_few_rise_and_stop_before_the_end(blocks: int) -> None:
    points = review_points(blocks)
    assert len(points) < REVIEWS
    assert list(points) == sorted(set(points))
    assert all(0 < point < blocks for point in points)


@given(st.permutations(range(12)))
def test_any_order_of_finishing_completes(order: list[int]) -> None:
    desk = BlockDesk(range(0, 24, 2), range(2, 26, 2))
    for block in order:
        assert not desk.complete
        desk.finish(block)
    assert desk.complete
    assert desk.evaluations_done == 24
