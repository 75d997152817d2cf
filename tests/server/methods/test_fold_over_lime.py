"""LIME over a fold-over design, against the regression over all coalitions."""

from __future__ import annotations

import numpy as np
import pytest
from voxplain.v1 import method_pb2
from voxplain_server.methods.draws import philox
from voxplain_server.methods.fold_over_design import design_by_fold_over
from voxplain_server.methods.fold_over_lime import METHOD
from voxplain_server.methods.hadamard import hadamard
from voxplain_server.methods.lime import METHOD as LIME
from voxplain_server.methods.pair_plan import PairPlan
from voxplain_server.methods.resolve import resolve_method

from tests.fakes import Explained, fake_model
from tests.server.methods.table_game import TableGame, coverage, found, random_game

GAME = random_game()


def _run(samples: int, seed: int = 0, *, width: float = 1.0, game: TableGame = GAME) -> Explained:
    return game.explain(METHOD, method_pb2.FoldOverLime(samples=samples, kernel_width=width), seed=seed)


def _plan(run: Explained) -> PairPlan:
    assert isinstance(run.plan, PairPlan)
    return run.plan


@pytest.mark.parametrize("width", [1.0, 0.3])
def test_it_equals_ribeiros_regression_over_its_coalitions_written_out(width: float) -> None:
    run = _run(80, width=width)
    plan = _plan(run)
    rows = np.concatenate([plan.first, ~plan.first])
    numbers = rows @ (1 << np.arange(GAME.players))
    design, weights = np.column_stack([np.ones(80), rows]), GAME.lime_weights(width)[numbers]
    expected = np.linalg.solve(design.T @ (weights[:, None] * design), design.T @ (weights * GAME.scores[numbers]))
    values = found(METHOD.estimate(plan, run.scores, run.all_done)).values[1:]
    np.testing.assert_allclose(values, expected[1:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [1.0, 0.3])
def test_all_coalitions_give_the_exact_regression_and_no_error(width: float) -> None:
    run = _run(2**GAME.players + 10, width=width)
    assert run.plan.evaluations == 2**GAME.players
    estimate = METHOD.estimate(run.plan, run.scores, run.all_done)
    np.testing.assert_allclose(found(estimate).values[1:], GAME.lime(width), rtol=0, atol=1e-6)
    assert estimate.standard_error == 0.0


@pytest.mark.parametrize("width", [1.0, 0.2])
def test_it_converges_to_the_regression_over_all_coalitions_without_bias(width: float) -> None:
    exact = GAME.lime(width)
    runs = [_run(120, seed, width=width) for seed in range(60)]
    values = np.array([found(METHOD.estimate(run.plan, run.scores, run.all_done)).values[1:] for run in runs])
    off = values.mean(axis=0) - exact
    assert (np.abs(off) < 4.0 * values.std(axis=0, ddof=1) / np.sqrt(60)).all()


@pytest.mark.parametrize(("samples", "width"), [(60, 1.0), (200, 1.0), (200, 0.2)])
def test_standard_errors_cover_the_exact_values(samples: int, width: float) -> None:
    params = method_pb2.FoldOverLime(samples=samples, kernel_width=width)
    covered, ratio = coverage(GAME, METHOD, params, GAME.lime(width), seeds=40)
    assert 0.90 <= covered <= 0.995
    assert 0.4 < ratio < 1.4


def test_its_error_is_lower_than_that_of_lime() -> None:
    exact = GAME.lime()
    ours, theirs = [], []
    for seed in range(12):
        run, other = _run(60, seed), GAME.explain(LIME, method_pb2.Lime(samples=60), seed=seed)
        ours.append(found(METHOD.estimate(run.plan, run.scores, run.all_done)).values[1:] - exact)
        theirs.append(found(LIME.estimate(other.plan, other.scores, other.all_done)).values[1:] - exact)
    assert np.mean(np.square(ours)) < 0.6 * np.mean(np.square(theirs))


def test_a_snapshot_rests_on_the_pairs_that_are_whole() -> None:
    run = _run(80)
    plan = _plan(run)
    done = np.arange(plan.evaluations) < 51
    scores = np.where(done, run.scores, np.nan)
    whole = METHOD.estimate(plan, scores, np.arange(plan.evaluations) < 50)
    np.testing.assert_array_equal(found(METHOD.estimate(plan, scores, done)).values, found(whole).values)
    assert np.isnan(found(METHOD.estimate(plan, scores, np.arange(plan.evaluations) < 1)).values[1:]).all()


@pytest.mark.parametrize("least", [1, 2, 3, 9, 12, 13, 21, 27, 50, 89, 200])
def test_hadamard_matrices_are_orthogonal_and_hardly_larger_than_asked(least: int) -> None:
    matrix = hadamard(least).astype(int)
    np.testing.assert_array_equal(matrix @ matrix.T, len(matrix) * np.eye(len(matrix)))
    assert set(np.unique(matrix)) <= {-1, 1}
    assert least <= len(matrix) <= least + 8


def test_a_whole_replicate_has_every_two_players_together_as_often_as_apart() -> None:
    players = 20
    first = design_by_fold_over(40, players, lambda name, number: philox(3, name, number))
    for replicate in (first[:20], first[20:]):
        signs = 2 * replicate.astype(int) - 1
        np.testing.assert_array_equal(signs.T @ signs, 20 * np.eye(players))


@pytest.mark.parametrize(("pairs", "players"), [(20, 6), (32, 6), (10, 6), (40, 12), (30, 45), (300, 45), (1, 1), (5, 2)])
def test_pairs_are_distinct(pairs: int, players: int) -> None:
    first = design_by_fold_over(pairs, players, lambda name, number: philox(3, name, number))
    assert len(first) == min(pairs, 2 ** (players - 1))
    both = np.concatenate([first, ~first])
    assert len(np.unique(both, axis=0)) == 2 * len(first)


@pytest.mark.parametrize("pairs", [3, 7, 11])
def test_every_coalition_is_as_likely(pairs: int) -> None:
    """Each pair, at each place; the design has 16 pairs of five players."""
    counts = np.zeros((pairs, 32))
    for seed in range(1500):
        first = design_by_fold_over(pairs, 5, lambda name, number, seed=seed: philox(seed, name, number))  # type: ignore[misc]
        counts[np.arange(pairs), first @ (1 << np.arange(5))] += 1
    by_pair = counts + counts[:, ::-1]
    share = 1500 / 16
    assert np.abs(by_pair[:, :16] - share).max() < 5.0 * np.sqrt(share)


def test_fewer_pairs_than_players_are_told() -> None:
    short, enough = _run(14), _run(40)
    assert [code for code, _ in METHOD.estimate(short.plan, short.scores, short.all_done).cautions] == ["UNDERDETERMINED"]
    assert METHOD.estimate(enough.plan, enough.scores, enough.all_done).cautions == ()


@pytest.mark.parametrize(
    ("asked", "field", "reason"),
    [
        (method_pb2.FoldOverLime(samples=1), "fold_over_lime.samples", "OUT_OF_RANGE"),
        (method_pb2.FoldOverLime(samples=1_000_001), "fold_over_lime.samples", "OUT_OF_RANGE"),
        (method_pb2.FoldOverLime(kernel_width=0.0), "fold_over_lime.kernel_width", "OUT_OF_RANGE"),
    ],
)
def test_impossible_parameters_are_refused_on_the_spec(asked: method_pb2.FoldOverLime, field: str, reason: str) -> None:
    _, violations = resolve_method(method_pb2.Method(fold_over_lime=asked), fake_model(((8, 8, 8),)))
    assert [(each.field, each.reason) for each in violations] == [(field, reason)]
