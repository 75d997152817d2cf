"""Scores that several processes see."""

from __future__ import annotations

import os

import numpy as np
import pytest
from voxplain_server.workers.score_board import ScoreBoard


def test_what_one_holder_writes_the_other_reads() -> None:
    front = ScoreBoard.create([3, 0, 100])
    worker = ScoreBoard(os.dup(front.descriptor), front.evaluations)
    worker.scores(2)[5:8] = [1.5, -2.0, np.pi]
    front.done(2)[5:8] = True
    np.testing.assert_array_equal(front.scores(2)[5:8], [1.5, -2.0, np.pi])
    assert worker.done(2).sum() == 3
    assert worker.done(0).sum() == 0
    assert front.scores(1).size == 0
    front.close()
    worker.close()


def test_methods_do_not_overlap() -> None:
    board = ScoreBoard.create([5, 7, 1])
    for method, count in enumerate(board.evaluations):
        board.scores(method)[:] = method + 1.0
        board.done(method)[:] = method == 1
        assert board.scores(method).size == board.done(method).size == count
    assert [board.scores(method).tolist() for method in range(3)] == [[1.0] * 5, [2.0] * 7, [3.0]]
    assert [int(board.done(method).sum()) for method in range(3)] == [0, 7, 0]
    board.close()


def test_a_memory_file_that_is_too_small_is_refused() -> None:
    small = ScoreBoard.create([1])
    with pytest.raises(ValueError, match="mmap length"):
        ScoreBoard(small.descriptor, [1000])
    small.close()
