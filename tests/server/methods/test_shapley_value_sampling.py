"""Shapley value sampling against its paper, against brute force and against Captum."""

from __future__ import annotations

from collections.abc import Iterator

import captum.attr
import numpy as np
import pytest
import torch
from voxplain.v1 import method_pb2
from voxplain_server.methods.shapley_value_sampling import METHOD
from voxplain_server.methods.walk_plan import WalkPlan
from voxplain_server.workers.map_making import modality_importance

from tests.fakes import brute_force_shapley, explain, fake_case, fake_setting, interaction_formula, linear_formula
from tests.server.methods.smooth_network import SmoothNetwork, network_formula, network_input

SHAPES = ((8, 8, 8),) * 2
GRID = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[8, 8, 4]))
SMALL = method_pb2.ShapleyValueSampling(grouping=GRID, permutations=6)


def test_it_equals_castros_algorithm_on_the_same_orders() -> None:
    case, formula = fake_case(SHAPES), interaction_formula(SHAPES)
    run = explain(METHOD, case, formula, SMALL)
    assert isinstance(run.plan, WalkPlan)
    found = METHOD.estimate(run.plan, run.scores, run.all_done).by_feature
    assert found is not None and found.standard_errors is not None
    gains: dict[int, list[float]] = {int(feature): [] for feature in run.plan.game.players}
    for walk in range(6):
        volumes = [np.zeros_like(volume) for volume in case.volumes]
        before = formula(volumes)
        for player in run.plan.order(walk):
            feature = int(run.plan.game.players[player])
            for volume, original, labels in zip(volumes, case.volumes, found.features.labels, strict=True):
                volume[labels == feature] = original[labels == feature]
            after = formula(volumes)
            gains[feature].append(after - before)
            before = after
    assert len(gains) == 4
    for feature, each in gains.items():
        assert found.values[feature] == pytest.approx(np.mean(each), abs=1e-12)
        assert found.standard_errors[feature] == pytest.approx(np.std(each, ddof=1) / np.sqrt(6), abs=1e-12)


@pytest.mark.usefixtures("captum_in_float64")
def test_it_equals_captum_on_the_same_permutations() -> None:
    case, network = fake_case(SHAPES), SmoothNetwork(2)
    network(network_input(case.volumes))
    run = explain(METHOD, case, network_formula(network), SMALL)
    plan = run.plan
    assert isinstance(plan, WalkPlan)
    found = METHOD.estimate(plan, run.scores, run.all_done).by_feature
    assert found is not None
    # Captum's features are 0 .. n-1: the grid's labels start at 1.
    mask = torch.from_numpy(np.stack(found.features.labels).astype(np.int64) - 1)[None]
    orders = iter([plan.order(walk) for walk in range(6)])

    def permutations(features: int, samples: int) -> Iterator[list[int]]:
        assert (features, samples) == (plan.players, 6)
        return (list(order) for order in orders)

    captums = captum.attr.ShapleyValueSampling(network)
    captums.permutation_generator = permutations
    with torch.no_grad():
        theirs = captums.attribute(network_input(case.volumes), feature_mask=mask, n_samples=6)[0].numpy()
    ours = np.stack(found.features.paint(found.values))
    assert np.abs(ours - theirs).max() <= 1e-6 * np.abs(theirs).max()


def test_it_converges_to_brute_force_within_its_standard_error() -> None:
    case, formula = fake_case(SHAPES), interaction_formula(SHAPES)
    run = explain(METHOD, case, formula, method_pb2.ShapleyValueSampling(grouping=GRID, permutations=400))
    plan = run.plan
    assert isinstance(plan, WalkPlan)
    found = METHOD.estimate(plan, run.scores, run.all_done).by_feature
    assert found is not None and found.standard_errors is not None

    def game(coalition: frozenset[int]) -> float:
        perturbed = [volume.copy() for volume in case.volumes]
        plan.game.without(np.array([p for p in range(plan.players) if p not in coalition], dtype=int)).write(perturbed)
        return formula(perturbed)

    exact = brute_force_shapley(plan.players, game)
    off = np.abs(found.values[plan.game.players] - exact)
    assert (off <= 4.0 * found.standard_errors[plan.game.players] + 1e-12).all()
    assert off.max() < 0.1 * np.abs(exact).max()


def test_one_walk_is_exact_for_a_linear_model() -> None:
    case, formula = fake_case(SHAPES), linear_formula(SHAPES)
    run = explain(METHOD, case, formula, method_pb2.ShapleyValueSampling(grouping=GRID, permutations=1))
    estimate = METHOD.estimate(run.plan, run.scores, run.all_done)
    assert estimate.by_feature is not None
    for feature in range(1, estimate.by_feature.features.count):
        perturbed = [
            np.where(labels == feature, np.float32(0), volume)
            for labels, volume in zip(estimate.by_feature.features.labels, case.volumes, strict=True)
        ]
        assert estimate.by_feature.values[feature] == pytest.approx(formula(case.volumes) - formula(perturbed), abs=1e-9)
    assert estimate.standard_error is None
    assert estimate.completeness_gap == pytest.approx(0.0, abs=1e-9)


def test_partial_walks_are_left_out() -> None:
    run = explain(METHOD, fake_case(SHAPES), interaction_formula(SHAPES), SMALL)
    plan = run.plan
    assert isinstance(plan, WalkPlan)
    done = np.arange(plan.evaluations) < 1 + 2 * plan.players + 3
    whole = np.arange(plan.evaluations) < 1 + 2 * plan.players
    partial = METHOD.estimate(plan, run.scores, done).by_feature
    two_walks = METHOD.estimate(plan, run.scores, whole).by_feature
    assert partial is not None and two_walks is not None and two_walks.standard_errors is not None
    np.testing.assert_array_equal(partial.values, two_walks.values)


def test_walks_done_out_of_order_count() -> None:
    run = explain(METHOD, fake_case(SHAPES), interaction_formula(SHAPES), SMALL)
    plan = run.plan
    assert isinstance(plan, WalkPlan)
    done = np.zeros(plan.evaluations, dtype=np.bool_)
    done[0] = True
    done[1 + 3 * plan.players : 1 + 4 * plan.players] = True
    estimate = METHOD.estimate(plan, run.scores, done)
    assert estimate.by_feature is not None and np.isfinite(estimate.by_feature.values).all()
    assert estimate.standard_error is None


def test_blocks_are_chains_of_whole_walks_in_which_each_step_adds_one_feature() -> None:
    setting = fake_setting(METHOD, fake_case(SHAPES), linear_formula(SHAPES), SMALL, block_size=9)
    plan = METHOD.plan(setting)
    assert isinstance(plan, WalkPlan)
    assert [(block.start, block.stop) for block in plan.blocks] == [(0, 5), (5, 9), (9, 17), (17, 25)]
    assert all(block.chain for block in plan.blocks)
    for walk in range(plan.walks):
        sizes = [len(plan.perturbation(1 + walk * plan.players + step).regions) for step in range(plan.players)]
        assert sizes == [3, 2, 1, 0]


def test_all_coalitions_share_the_regions_of_a_feature() -> None:
    plan = METHOD.plan(fake_setting(METHOD, fake_case(SHAPES), linear_formula(SHAPES), SMALL))
    everything = plan.perturbation(0).regions
    for region in plan.perturbation(1).regions:
        assert any(region is other for other in everything)


def test_the_gap_sums_features_and_the_importance_of_a_modality_their_voxels() -> None:
    case, formula = fake_case(SHAPES), interaction_formula(SHAPES)
    run = explain(METHOD, case, formula, SMALL)
    estimate = METHOD.estimate(run.plan, run.scores, run.all_done)
    found = estimate.by_feature
    assert found is not None and estimate.baseline_score is not None
    difference = formula(case.volumes) - estimate.baseline_score
    assert estimate.completeness_gap == pytest.approx(difference - found.values.sum(), abs=1e-12)
    assert estimate.completeness_gap == pytest.approx(0.0, abs=1e-9)
    sums = [each.sum for each in modality_importance(estimate, case.model.modality_names)]
    # Each of the four boxes has 8 * 8 * 4 voxels, and all of them hold its value.
    assert sum(sums) == pytest.approx(8 * 8 * 4 * found.values.sum())
