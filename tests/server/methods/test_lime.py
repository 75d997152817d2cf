"""LIME against its paper and against Captum."""

from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr._core.lime import get_exp_kernel_similarity_function
from voxplain.v1 import method_pb2
from voxplain_server.methods.coalition_plan import CoalitionPlan
from voxplain_server.methods.lime import METHOD
from voxplain_server.methods.resolve import resolve_method

from tests.fakes import Explained, explain, fake_case, fake_model, interaction_formula, linear_formula
from tests.server.methods.smooth_network import SmoothNetwork, network_formula, network_input

SHAPES = ((8, 8, 8),) * 2
GRID = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[4, 8, 4]))
MEAN = method_pb2.Baseline(modality_mean=method_pb2.ModalityMeanBaseline())


def _plan(run: Explained) -> CoalitionPlan:
    assert isinstance(run.plan, CoalitionPlan)
    return run.plan


def test_it_equals_ribeiros_regression_written_out() -> None:
    case, formula = fake_case(SHAPES), interaction_formula(SHAPES)
    params = method_pb2.Lime(grouping=GRID, samples=70, kernel_width=0.4, baseline=MEAN)
    run = explain(METHOD, case, formula, params)
    plan = _plan(run)
    original = np.concatenate([volume.ravel().astype(np.float64) for volume in case.volumes])
    design, weights, answers = [], [], []
    for draw in plan.draws:
        perturbed = [volume.copy() for volume in case.volumes]
        plan.perturbation(int(draw)).write(perturbed)
        flat = np.concatenate([volume.ravel().astype(np.float64) for volume in perturbed])
        distance = 1.0 - original @ flat / (np.linalg.norm(original) * np.linalg.norm(flat))
        design.append([1.0, *plan.coalitions[draw].astype(float)])
        weights.append(np.exp(-(distance**2) / (2.0 * 0.4**2)))
        answers.append(formula(perturbed))
    x, w, y = np.array(design), np.array(weights), np.array(answers)
    expected = np.linalg.solve(x.T @ (w[:, None] * x), x.T @ (w * y))
    found = METHOD.estimate(plan, run.scores, run.all_done).by_feature
    assert found is not None
    np.testing.assert_allclose(found.values[plan.game.players], expected[1:], rtol=0, atol=1e-10)


@pytest.mark.usefixtures("captum_in_float64")
@pytest.mark.parametrize("baseline", [MEAN, method_pb2.Baseline(zero=method_pb2.ZeroBaseline())])
def test_it_equals_captum_on_the_same_coalitions(baseline: method_pb2.Baseline) -> None:
    case, network = fake_case(SHAPES), SmoothNetwork(2)
    network(network_input(case.volumes))
    params = method_pb2.Lime(grouping=GRID, samples=60, baseline=baseline)
    run = explain(METHOD, case, network_formula(network), params)
    plan = _plan(run)
    found = METHOD.estimate(plan, run.scores, run.all_done).by_feature
    assert found is not None
    coalitions = iter(plan.coalitions[plan.draws].astype(np.int64))

    def same_coalition(original: object, **settings: object) -> torch.Tensor:
        return torch.from_numpy(next(coalitions))[None]

    captums = captum.attr.Lime(
        network,
        interpretable_model=SkLearnLinearRegression(),
        similarity_func=get_exp_kernel_similarity_function("cosine", kernel_width=1.0),
        perturb_func=same_coalition,
    )
    theirs = captums.attribute(
        network_input(case.volumes),
        baselines=network_input(plan.game.source),
        feature_mask=torch.from_numpy(np.stack(found.features.labels).astype(np.int64) - 1)[None],
        n_samples=60,
    )[0]
    ours = np.stack(found.features.paint(found.values))
    assert np.abs(ours - theirs.detach().numpy()).max() <= 1e-6 * float(theirs.abs().max())


def test_coalitions_are_fair_coins() -> None:
    run = explain(METHOD, fake_case(SHAPES), linear_formula(SHAPES), method_pb2.Lime(grouping=GRID, samples=4000))
    plan = _plan(run)
    share = plan.coalitions[plan.draws].mean(axis=0)
    assert np.abs(share - 0.5).max() < 5.0 * 0.5 / np.sqrt(4000)
    # Eight players have 256 coalitions: each is evaluated once, however often it was drawn.
    assert plan.evaluations == 256


def test_a_linear_model_is_met_exactly_whatever_the_weights() -> None:
    case, formula = fake_case(SHAPES), linear_formula(SHAPES)
    run = explain(METHOD, case, formula, method_pb2.Lime(grouping=GRID, samples=60, kernel_width=0.1))
    found = METHOD.estimate(run.plan, run.scores, run.all_done).by_feature
    assert found is not None
    for feature in range(1, found.features.count):
        removed = [
            np.where(labels == feature, np.float32(0), volume)
            for labels, volume in zip(found.features.labels, case.volumes, strict=True)
        ]
        assert found.values[feature] == pytest.approx(formula(case.volumes) - formula(removed), abs=1e-9)


def test_standard_errors_match_the_spread_over_seeds() -> None:
    case, formula = fake_case(SHAPES), interaction_formula(SHAPES)
    params = method_pb2.Lime(grouping=GRID, samples=100)
    runs = [explain(METHOD, case, formula, params, seed=seed) for seed in range(40)]
    found = [METHOD.estimate(run.plan, run.scores, run.all_done).by_feature for run in runs]
    values = np.array([each.values[1:] for each in found if each is not None])
    errors = np.array([each.standard_errors[1:] for each in found if each is not None and each.standard_errors is not None])
    assert values.shape == errors.shape == (40, 8)
    ratio = np.sqrt((errors**2).mean()) / np.sqrt(values.var(axis=0, ddof=1).mean())
    assert 0.75 < ratio < 1.35


def test_standard_errors_start_two_samples_beyond_the_features() -> None:
    run = explain(METHOD, fake_case(SHAPES), interaction_formula(SHAPES), method_pb2.Lime(grouping=GRID, samples=100))
    known = []
    for samples in range(2, 30):
        done = np.arange(run.plan.evaluations) < samples
        known.append(METHOD.estimate(run.plan, run.scores, done).standard_error is not None)
    first = known.index(True) + 2
    assert first >= 8 + 2
    assert first <= 14
    assert all(known[first - 2 :])


@pytest.mark.parametrize(
    ("asked", "field", "reason"),
    [
        (method_pb2.Lime(samples=0), "lime.samples", "OUT_OF_RANGE"),
        (method_pb2.Lime(samples=2**31), "lime.samples", "OUT_OF_RANGE"),
        (method_pb2.Lime(kernel_width=0.0), "lime.kernel_width", "OUT_OF_RANGE"),
        (method_pb2.Lime(kernel_width=-1.0), "lime.kernel_width", "OUT_OF_RANGE"),
        (method_pb2.Lime(kernel_width=float("nan")), "lime.kernel_width", "NOT_FINITE"),
        (method_pb2.Lime(kernel_width=float("inf")), "lime.kernel_width", "NOT_FINITE"),
    ],
)
def test_impossible_parameters_are_refused_on_the_spec(asked: method_pb2.Lime, field: str, reason: str) -> None:
    _, violations = resolve_method(method_pb2.Method(lime=asked), fake_model(SHAPES))
    assert [(each.field, each.reason) for each in violations] == [(field, reason)]
