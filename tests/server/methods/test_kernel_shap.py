"""KernelSHAP against its paper, against brute force and against Captum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import comb

import captum.attr
import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from voxplain.v1 import method_pb2
from voxplain_server.methods.coalition_plan import CoalitionPlan
from voxplain_server.methods.draws import philox
from voxplain_server.methods.kernel_shap import METHOD, draw_coalitions
from voxplain_server.methods.resolve import resolve_method

from tests.fakes import Explained, brute_force_shapley, explain, fake_case, fake_model, interaction_formula, linear_formula
from tests.server.methods.smooth_network import SmoothNetwork, network_formula, network_input

SHAPES = ((8, 8, 8),) * 2
EIGHT_BOXES = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[4]), shared=True)


def _run(samples: int, *, seed: int = 0) -> Explained:
    params = method_pb2.KernelShap(grouping=EIGHT_BOXES, samples=samples)
    return explain(METHOD, fake_case(SHAPES), interaction_formula(SHAPES), params, seed=seed)


def _plan(run: Explained) -> CoalitionPlan:
    assert isinstance(run.plan, CoalitionPlan)
    return run.plan


def test_it_equals_weighted_least_squares_over_all_draws() -> None:
    run = _run(60)
    plan = _plan(run)
    present = plan.coalitions[plan.draws].astype(float)
    assert present.shape == (60, 8) and plan.evaluations < 60
    design = np.column_stack([np.ones(60), present])
    weights = np.where(np.isin(present.sum(axis=1), [0, 8]), 1e6, 1.0)
    normal = design.T @ np.diag(weights) @ design
    expected = np.linalg.solve(normal, design.T @ (weights * run.scores[plan.draws]))
    found = METHOD.estimate(plan, run.scores, run.all_done).by_feature
    assert found is not None
    np.testing.assert_allclose(found.values[plan.game.players], expected[1:], rtol=0, atol=1e-8)


@pytest.mark.usefixtures("captum_in_float64")
@pytest.mark.parametrize("samples", [40, 120])
def test_it_equals_captum_on_the_same_coalitions(samples: int) -> None:
    case, network = fake_case(SHAPES), SmoothNetwork(2)
    network(network_input(case.volumes))
    params = method_pb2.KernelShap(grouping=EIGHT_BOXES, samples=samples)
    run = explain(METHOD, case, network_formula(network), params)
    plan = _plan(run)
    found = METHOD.estimate(plan, run.scores, run.all_done).by_feature
    assert found is not None

    def same_coalitions(original: object, **settings: object) -> Iterator[torch.Tensor]:
        for draw in plan.draws:
            yield torch.from_numpy(plan.coalitions[draw].astype(np.int64))[None]

    captums = captum.attr.KernelShap(network)
    captums.perturb_func = same_coalitions
    # The grid has no background: Captum's features 0 .. 7 are our 1 .. 8.
    mask = torch.from_numpy(np.stack(found.features.labels).astype(np.int64) - 1)[None]
    theirs = captums.attribute(network_input(case.volumes), feature_mask=mask, n_samples=samples)[0].detach().numpy()
    assert isinstance(captums.interpretable_model, SkLearnLinearRegression)
    ours = np.stack(found.features.paint(found.values))
    assert np.abs(ours - theirs).max() <= 1e-6 * np.abs(theirs).max()


def test_every_coalition_drawn_often_gives_brute_force_shapley() -> None:
    run = _run(20_000)
    plan = _plan(run)
    assert plan.evaluations == 2**8
    case, formula = run.setting.case, interaction_formula(SHAPES)

    def game(coalition: frozenset[int]) -> float:
        perturbed = [volume.copy() for volume in case.volumes]
        plan.game.without(np.array([p for p in range(8) if p not in coalition], dtype=int)).write(perturbed)
        return formula(perturbed)

    exact = brute_force_shapley(8, game)
    estimate = METHOD.estimate(plan, run.scores, run.all_done)
    assert estimate.by_feature is not None and estimate.by_feature.standard_errors is not None
    off = np.abs(estimate.by_feature.values[plan.game.players] - exact)
    assert off.max() < 0.02 * np.abs(exact).max()
    assert (off <= 4.5 * estimate.by_feature.standard_errors[plan.game.players]).all()


def test_a_linear_model_is_met_exactly() -> None:
    case, formula = fake_case(SHAPES), linear_formula(SHAPES)
    run = explain(METHOD, case, formula, method_pb2.KernelShap(grouping=EIGHT_BOXES, samples=60))
    estimate = METHOD.estimate(run.plan, run.scores, run.all_done)
    assert estimate.by_feature is not None and estimate.standard_error is not None
    for feature in range(1, 9):
        removed = [
            np.where(labels == feature, np.float32(0), volume)
            for labels, volume in zip(estimate.by_feature.features.labels, case.volumes, strict=True)
        ]
        assert estimate.by_feature.values[feature] == pytest.approx(formula(case.volumes) - formula(removed), abs=1e-7)
    assert estimate.standard_error < 1e-6


def test_coalition_sizes_follow_the_shapley_kernel() -> None:
    players, samples = 7, 40_000
    drawn = draw_coalitions(samples, players, philox(3, "sizes"))
    assert drawn[0].all() and not drawn[1].any()
    rest = drawn[2:]
    assert not rest.all(axis=1).any() and rest.any(axis=1).all()
    # Each coalition's share is the Shapley kernel (M - 1) / (C(M, k) k (M - k)), normalised.
    kernel = {k: (players - 1) / (comb(players, k) * k * (players - k)) for k in range(1, players)}
    total = sum(comb(players, k) * each for k, each in kernel.items())
    counts = Counter(tuple(row) for row in rest)
    assert len(counts) == 2**players - 2
    for coalition, count in counts.items():
        share = kernel[sum(coalition)] / total
        assert abs(count - samples * share) < 5.0 * np.sqrt(samples * share)


def test_standard_errors_match_the_spread_over_seeds() -> None:
    runs = [_run(150, seed=seed) for seed in range(40)]
    found = [METHOD.estimate(run.plan, run.scores, run.all_done).by_feature for run in runs]
    values = np.array([each.values[1:] for each in found if each is not None])
    errors = np.array([each.standard_errors[1:] for each in found if each is not None and each.standard_errors is not None])
    assert values.shape == errors.shape == (40, 8)
    ratio = np.sqrt((errors**2).mean()) / np.sqrt(values.var(axis=0, ddof=1).mean())
    assert 0.75 < ratio < 1.35


def test_fewer_coalitions_than_features_are_told() -> None:
    short, enough = _run(6), _run(60)
    cautions = METHOD.estimate(short.plan, short.scores, short.all_done).cautions
    assert [code for code, _ in cautions] == ["UNDERDETERMINED"]
    assert METHOD.estimate(short.plan, short.scores, short.all_done).standard_error is None
    assert METHOD.estimate(enough.plan, enough.scores, enough.all_done).cautions == ()


def test_a_snapshot_is_the_estimate_of_the_draws_before_the_first_gap() -> None:
    run = _run(60)
    plan = _plan(run)
    done = np.arange(plan.evaluations) < 30
    stop = int(np.argmin(done[plan.draws]))
    assert 30 <= stop < 60
    present = plan.coalitions[plan.draws[:stop]].astype(float)
    design = np.column_stack([np.ones(stop), present])
    weights = np.where(np.isin(present.sum(axis=1), [0, 8]), 1e6, 1.0)
    expected = np.linalg.solve(design.T @ np.diag(weights) @ design, design.T @ (weights * run.scores[plan.draws[:stop]]))
    found = METHOD.estimate(plan, run.scores, done).by_feature
    assert found is not None
    np.testing.assert_allclose(found.values[1:], expected[1:], rtol=0, atol=1e-8)


@pytest.mark.parametrize("samples", [0, 2, 2**31, 1_000_001])
def test_absurd_sample_counts_are_refused_on_the_spec(samples: int) -> None:
    asked = method_pb2.Method(kernel_shap=method_pb2.KernelShap(samples=samples))
    _, violations = resolve_method(asked, fake_model(SHAPES))
    assert [(each.field, each.reason) for each in violations] == [("kernel_shap.samples", "OUT_OF_RANGE")]


def test_a_single_feature_gets_the_whole_difference() -> None:
    grouping = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[8]), shared=True)
    run = explain(METHOD, fake_case(SHAPES), interaction_formula(SHAPES), method_pb2.KernelShap(grouping=grouping, samples=10))
    estimate = METHOD.estimate(run.plan, run.scores, run.all_done)
    assert run.plan.evaluations == 2 and estimate.by_feature is not None
    assert estimate.by_feature.values[1] == pytest.approx(run.setting.base_score - run.scores[1])
