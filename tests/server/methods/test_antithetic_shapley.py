"""Antithetic Shapley sampling against its paper and against exact values."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from voxplain.v1 import method_pb2
from voxplain_server.methods.antithetic_shapley import METHOD
from voxplain_server.methods.resolve import resolve_method
from voxplain_server.methods.shapley_value_sampling import METHOD as SAMPLING
from voxplain_server.methods.walk_plan import WalkPlan

from tests.fakes import Explained, brute_force_shapley, fake_model, fake_setting
from tests.server.methods.table_game import VOXELS, TableGame, coverage, found, polynomial_game, random_game

GAME = random_game()


def _run(groups: int, seed: int = 0) -> Explained:
    return GAME.explain(METHOD, method_pb2.AntitheticShapley(groups=groups), seed=seed)


def _plan(run: Explained) -> WalkPlan:
    assert isinstance(run.plan, WalkPlan)
    return run.plan


def test_it_equals_castros_algorithm_on_orders_their_reverses_and_their_halves_exchanged() -> None:
    run = _run(5)
    plan = _plan(run)
    means = []
    for group in range(5):
        order = [int(player) for player in plan.order(4 * group)]
        other = [*order[5:], *order[:5]]
        gains = np.zeros((4, GAME.players))
        for walk, each in enumerate((order, order[::-1], other, other[::-1])):
            coalition = 0
            for player in each:
                gains[walk, player] = GAME.scores[coalition | 1 << player] - GAME.scores[coalition]
                coalition |= 1 << player
        means.append(gains.mean(axis=0))
    values = found(METHOD.estimate(plan, run.scores, run.all_done))
    np.testing.assert_allclose(values.values[1:], np.mean(means, axis=0), rtol=0, atol=1e-12)
    assert values.standard_errors is not None
    np.testing.assert_allclose(values.standard_errors[1:], np.std(means, axis=0, ddof=1) / np.sqrt(5), rtol=0, atol=1e-12)


def test_the_exact_values_of_a_table_are_those_of_all_orders() -> None:
    small = random_game(6, seed=3)
    worth = brute_force_shapley(6, lambda players: float(small.scores[sum(1 << player for player in players)]))
    np.testing.assert_allclose(small.shapley(), worth, rtol=0, atol=1e-12)


def test_one_group_is_exact_for_interactions_of_two_players_and_no_more() -> None:
    for degree, exact in ((2, True), (3, False)):
        game = polynomial_game(7, degree)
        run = game.explain(METHOD, method_pb2.AntitheticShapley(groups=1))
        estimate = METHOD.estimate(run.plan, run.scores, run.all_done)
        off = np.abs(found(estimate).values[1:] - game.shapley()).max()
        assert (off < 1e-12) == exact
        assert estimate.standard_error is None
        assert estimate.completeness_gap == pytest.approx(0.0, abs=1e-12)


def test_it_converges_to_the_exact_values_within_its_standard_error() -> None:
    run = _run(300)
    values, exact = found(METHOD.estimate(run.plan, run.scores, run.all_done)), GAME.shapley()
    assert values.standard_errors is not None
    assert (np.abs(values.values[1:] - exact) <= 4.0 * values.standard_errors[1:]).all()
    assert np.abs(values.values[1:] - exact).max() < 0.1 * np.abs(exact).max()


def test_standard_errors_cover_the_exact_values() -> None:
    covered, ratio = coverage(GAME, METHOD, method_pb2.AntitheticShapley(groups=25), GAME.shapley(), seeds=40)
    assert 0.90 <= covered <= 0.98
    assert 0.7 < ratio < 1.4


def test_where_most_interactions_are_of_two_players_its_error_is_far_below_that_of_as_many_single_walks() -> None:
    game = TableGame(polynomial_game(9, 2, seed=1).scores + 0.1 * GAME.scores)
    exact = game.shapley()
    ours, theirs = [], []
    for seed in range(12):
        run = game.explain(METHOD, method_pb2.AntitheticShapley(groups=3), seed=seed)
        other = game.explain(SAMPLING, method_pb2.ShapleyValueSampling(permutations=12), seed=seed)
        assert run.plan.evaluations == other.plan.evaluations
        ours.append(found(METHOD.estimate(run.plan, run.scores, run.all_done)).values[1:] - exact)
        theirs.append(found(SAMPLING.estimate(other.plan, other.scores, other.all_done)).values[1:] - exact)
    assert np.mean(np.square(ours)) < 0.1 * np.mean(np.square(theirs))


def test_a_walk_counts_only_with_its_whole_group() -> None:
    run = _run(4)
    plan, players = _plan(run), GAME.players
    first_and_half = np.arange(plan.evaluations) < 1 + 6 * players
    estimate = METHOD.estimate(plan, run.scores, first_and_half)
    one = METHOD.estimate(plan, run.scores, np.arange(plan.evaluations) < 1 + 4 * players)
    np.testing.assert_array_equal(found(estimate).values, found(one).values)
    crossed = np.zeros(plan.evaluations, dtype=np.bool_)
    crossed[0] = True
    crossed[1 + 2 * players : 1 + 6 * players] = True
    assert np.isnan(found(METHOD.estimate(plan, run.scores, crossed)).values[1:]).all()


def test_every_walk_of_a_group_is_as_random_as_any() -> None:
    counts = np.zeros((4, 6))
    plan = _plan(random_game(3).explain(METHOD, method_pb2.AntitheticShapley(groups=1)))
    orders = sorted(permutations(range(3)))
    for seed in range(1200):
        other = replace(plan, seed=seed)
        for walk in range(4):
            counts[walk, orders.index(tuple(int(player) for player in other.order(walk)))] += 1
    assert np.abs(counts - 200).max() < 5.0 * np.sqrt(200)


def test_blocks_are_chains_of_whole_groups() -> None:
    setting = fake_setting(
        METHOD, GAME.case, GAME.formula, method_pb2.AntitheticShapley(grouping=VOXELS, groups=5), block_size=80
    )
    plan = METHOD.plan(setting)
    assert [(block.start, block.stop, block.chain) for block in plan.blocks] == [
        (0, 37, True),
        (37, 73, True),
        (73, 145, True),
        (145, 181, True),
    ]


@pytest.mark.parametrize("groups", [0, 25_001])
def test_absurd_numbers_of_groups_are_refused_on_the_spec(groups: int) -> None:
    asked = method_pb2.Method(antithetic_shapley=method_pb2.AntitheticShapley(groups=groups))
    _, violations = resolve_method(asked, fake_model(((8, 8, 8),)))
    assert [(each.field, each.reason) for each in violations] == [("antithetic_shapley.groups", "OUT_OF_RANGE")]
