"""Leverage SHAP against its paper and against exact values."""

from __future__ import annotations

from math import comb, factorial

import numpy as np
import pytest
from voxplain.v1 import method_pb2
from voxplain_server.methods.draws import philox
from voxplain_server.methods.kernel_shap import METHOD as KERNEL_SHAP
from voxplain_server.methods.leverage_design import count_pairs, design_by_leverage, share_out
from voxplain_server.methods.leverage_shap import METHOD
from voxplain_server.methods.pair_plan import PairPlan
from voxplain_server.methods.resolve import resolve_method

from tests.fakes import Explained, fake_model
from tests.server.methods.table_game import TableGame, coverage, found, polynomial_game, random_game

GAME = random_game()


def _run(samples: int, seed: int = 0, game: TableGame = GAME) -> Explained:
    return game.explain(METHOD, method_pb2.LeverageShap(samples=samples), seed=seed)


def _plan(run: Explained) -> PairPlan:
    assert isinstance(run.plan, PairPlan)
    return run.plan


def _written_out(game: TableGame, plan: PairPlan, pairs: np.ndarray) -> np.ndarray:
    """The paper's regression: argmin of |S (Z x - y)| under <1, x> = v(all) - v(none), a coalition weighing its Shapley kernel
    over the share of its size that was drawn; by Lagrange's multipliers."""
    n = game.players
    halves = plan.first[pairs]
    rows = np.concatenate([halves, ~halves])
    sizes = rows.sum(axis=1)
    drawn = np.array([np.sum(sizes == size) / comb(n, int(size)) for size in sizes])
    kernel = np.array([factorial(s - 1) * factorial(n - s - 1) / factorial(n) for s in sizes])
    weights = kernel / drawn
    answers = game.scores[rows @ (1 << np.arange(n))] - game.scores[0]
    z = rows.astype(float)
    system = np.block([[z.T @ (weights[:, None] * z), np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    return np.linalg.solve(system, [*(z.T @ (weights * answers)), game.scores[-1] - game.scores[0]])[:n]


@pytest.mark.parametrize("samples", [50, 120])
def test_it_equals_the_papers_regression_written_out(samples: int) -> None:
    run = _run(samples)
    plan = _plan(run)
    expected = _written_out(GAME, plan, np.arange(len(plan.first)))
    values = found(METHOD.estimate(plan, run.scores, run.all_done)).values[1:]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-10)


def test_a_snapshot_is_the_papers_regression_on_the_pairs_that_are_there() -> None:
    run = _run(160)
    plan = _plan(run)
    done = np.arange(plan.evaluations) < 81
    done[90:96] = True
    pairs = np.array([*range(39), 44, 45, 46])
    values = found(METHOD.estimate(plan, run.scores, done)).values[1:]
    np.testing.assert_allclose(values, _written_out(GAME, plan, pairs), rtol=0, atol=1e-10)


@pytest.mark.parametrize("players", [2, 3, 6, 9])
def test_all_coalitions_give_the_exact_values_and_no_error(players: int) -> None:
    game = random_game(players, seed=players)
    run = _run(2**players + 30, game=game)
    assert run.plan.evaluations == 2**players
    estimate = METHOD.estimate(run.plan, run.scores, run.all_done)
    np.testing.assert_allclose(found(estimate).values[1:], game.shapley(), rtol=0, atol=1e-10)
    assert estimate.standard_error == 0.0
    assert estimate.completeness_gap == pytest.approx(0.0, abs=1e-12)


def test_interactions_of_two_players_cancel() -> None:
    game = polynomial_game(8, 2)
    run = _run(60, game=game)
    np.testing.assert_allclose(
        found(METHOD.estimate(run.plan, run.scores, run.all_done)).values[1:], game.shapley(), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("samples", [60, 200, 400])
def test_standard_errors_cover_the_exact_values(samples: int) -> None:
    covered, ratio = coverage(GAME, METHOD, method_pb2.LeverageShap(samples=samples), GAME.shapley(), seeds=40)
    assert 0.90 <= covered <= 0.985
    assert 0.5 < ratio < 1.4


def test_its_error_is_lower_than_that_of_kernel_shap() -> None:
    exact = GAME.shapley()
    ours, theirs = [], []
    for seed in range(12):
        run, other = _run(120, seed), GAME.explain(KERNEL_SHAP, method_pb2.KernelShap(samples=120), seed=seed)
        ours.append(found(METHOD.estimate(run.plan, run.scores, run.all_done)).values[1:] - exact)
        theirs.append(found(KERNEL_SHAP.estimate(other.plan, other.scores, other.all_done)).values[1:] - exact)
    assert np.mean(np.square(ours)) < 0.6 * np.mean(np.square(theirs))


def test_as_many_pairs_as_unknowns_are_no_worse_than_half_as_many() -> None:
    exact = GAME.shapley()

    def error(samples: int) -> float:
        runs = [_run(samples, seed) for seed in range(20)]
        return float(np.mean([(found(METHOD.estimate(r.plan, r.scores, r.all_done)).values[1:] - exact) ** 2 for r in runs]))

    # Plain least squares has its worst error where the system is square: four times that of half as many pairs.
    assert error(2 + 2 * (GAME.players - 1)) < 1.5 * error(2 + GAME.players - 1)


def test_few_samples_are_told_and_have_no_standard_error() -> None:
    for samples, code in ((8, "UNDERDETERMINED"), (26, "FEW_SAMPLES"), (60, None)):
        run = _run(samples)
        estimate = METHOD.estimate(run.plan, run.scores, run.all_done)
        assert [each for each, _ in estimate.cautions] == ([code] if code else [])
        assert (estimate.standard_error is None) == (code is not None)
        assert estimate.completeness_gap == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("players", [4, 5, 12, 50])
def test_every_size_gives_the_same_number_of_pairs_or_all_it_has(players: int) -> None:
    pairs = 3 * players
    totals = count_pairs(players)
    counts = share_out(pairs, players, totals)
    assert counts.sum() == min(pairs, totals.sum()) and (counts <= totals).all()
    full = counts == totals
    free = counts[: (players - 1) // 2][~full[: (players - 1) // 2]]
    assert free.size == 0 or free.max() - free.min() <= 1
    if players % 2 == 0 and not full[-1] and free.size:
        assert abs(2 * counts[-1] - free[0]) <= 2


def test_pairs_are_distinct_and_of_the_size_that_they_are_counted_for() -> None:
    for players, pairs in ((8, 90), (9, 255), (30, 400), (1200, 40)):
        design = design_by_leverage(pairs, players, lambda size: philox(5, "design", size))
        assert len(design.first) == pairs
        np.testing.assert_array_equal(design.first.sum(axis=1), design.strata + 1)
        both = np.concatenate([design.first, ~design.first])
        assert len(np.unique(np.packbits(both, axis=1), axis=0)) == 2 * pairs


def test_every_coalition_of_a_size_is_as_likely() -> None:
    counts = np.zeros(2**5)
    for seed in range(2000):
        design = design_by_leverage(6, 5, lambda size, seed=seed: philox(seed, "size", size))  # type: ignore[misc]
        counts[design.first @ (1 << np.arange(5))] += 1
    sizes = np.array([number.bit_count() for number in range(32)])
    assert (counts[(sizes == 0) | (sizes > 2)] == 0).all()
    for size, wanted in ((1, 3 / 5), (2, 3 / 10)):
        each = counts[sizes == size]
        assert np.abs(each - 2000 * wanted).max() < 5.0 * np.sqrt(2000 * wanted * (1 - wanted))


def test_the_sizes_of_every_beginning_are_in_proportion() -> None:
    design = design_by_leverage(200, 40, lambda size: philox(5, "design", size))
    whole = np.bincount(design.strata, minlength=20) / 200
    for stop in (40, 77, 120):
        part = np.bincount(design.strata[:stop], minlength=20)
        assert np.abs(part - stop * whole).max() <= 1.0


def test_a_single_player_gets_the_whole_difference() -> None:
    run = _run(10, game=TableGame(np.array([1.0, 3.5])))
    estimate = METHOD.estimate(run.plan, run.scores, run.all_done)
    assert run.plan.evaluations == 2
    assert found(estimate).values[1] == 2.5
    assert estimate.standard_error == 0.0


@pytest.mark.parametrize("samples", [0, 3, 1_000_001])
def test_absurd_sample_counts_are_refused_on_the_spec(samples: int) -> None:
    asked = method_pb2.Method(leverage_shap=method_pb2.LeverageShap(samples=samples))
    _, violations = resolve_method(asked, fake_model(((8, 8, 8),)))
    assert [(each.field, each.reason) for each in violations] == [("leverage_shap.samples", "OUT_OF_RANGE")]
