"""How a plan is cut: fixed by its size, with a beginning that is soon done."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from voxplain_server.methods.plan import BEGINNING, cut


@given(st.integers(0, 3000), st.integers(1, 700), st.integers(1, 5))
def test_blocks_cover_a_plan_once_and_all_borders_but_one_are_those_of_equal_blocks(size: int, block: int, least: int) -> None:
    blocks = cut(size, block, least=least)
    assert [index for each in blocks for index in range(each.start, each.stop)] == list(range(size))
    assert all(each.start < each.stop for each in blocks)
    extra = [each.start for each in blocks if each.start % block]
    assert len(extra) <= 1
    if extra:
        assert extra == [blocks[0].stop]
        assert extra[0] % least == 0
        assert extra[0] <= max(block / BEGINNING, least)


@given(st.integers(64, 5000), st.integers(64, 600))
def test_the_first_block_is_a_small_part_of_a_block(size: int, block: int) -> None:
    assert 1 <= cut(size, block)[0].stop <= block // BEGINNING
