"""What every perturbation method promises, for each that is registered. A new method is tested by existing."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf.message import Message
from voxplain.v1 import method_pb2
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.methods import all_methods
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.method import PerturbationMethod
from voxplain_server.methods.plan import Plan

from tests.fakes import Explained, explain, fake_case, fake_setting, interaction_formula, linear_formula

SHAPES = ((8, 8, 8), (8, 8, 8))
GRID = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[4]))
SMALLER: dict[str, Message] = {
    "occlusion": method_pb2.Occlusion(window=[2], stride=[1], fill=method_pb2.Baseline(zero=method_pb2.ZeroBaseline())),
    "shapley-value-sampling": method_pb2.ShapleyValueSampling(grouping=GRID, permutations=3),
    "kernel-shap": method_pb2.KernelShap(grouping=GRID, samples=60),
    "lime": method_pb2.Lime(grouping=GRID, samples=60),
    "antithetic-shapley": method_pb2.AntitheticShapley(grouping=GRID, groups=3),
    "leverage-shap": method_pb2.LeverageShap(grouping=GRID, samples=70),
    "fold-over-lime": method_pb2.FoldOverLime(grouping=GRID, samples=60),
}
"""Parameters that keep a run small; a method that is not here runs with its defaults."""

METHODS = {name: method for name, method in all_methods().items() if isinstance(method, PerturbationMethod)}

SAMPLING = ["shapley-value-sampling", "kernel-shap", "lime", "antithetic-shapley", "leverage-shap", "fold-over-lime"]

WITH_BASELINE = [name for name in METHODS if name != "feature-permutation"]


def _explained(name: str, *, seed: int = 0, block_size: int = 16) -> Explained:
    case = fake_case(SHAPES, donors=2)
    formula = interaction_formula(SHAPES)
    return explain(METHODS[name], case, formula, SMALLER.get(name), seed=seed, block_size=block_size)


@pytest.fixture(scope="module")
def explained() -> dict[str, Explained]:
    return {name: _explained(name) for name in METHODS}


def _arrays(estimate: Estimate) -> list[npt.NDArray[np.float64]]:
    if estimate.maps is not None:
        return list(estimate.maps)
    if estimate.by_feature is not None:
        return [estimate.by_feature.values]
    assert estimate.modality_values is not None
    return [estimate.modality_values]


def _digest(plan: Plan) -> str:
    """Of every perturbation of the plan."""
    digest = hashlib.sha256()
    for index in range(plan.evaluations):
        perturbation = plan.perturbation(index)
        for region in perturbation.regions:
            digest.update(repr((region.modality, region.box)).encode())
            digest.update(b"" if region.indices is None else region.indices.tobytes())
            digest.update(perturbation.source[region.modality].tobytes())
    return digest.hexdigest()


def test_the_ten_perturbation_methods_are_registered() -> None:
    assert {
        "occlusion",
        "feature-ablation",
        "shapley-value-sampling",
        "kernel-shap",
        "feature-permutation",
        "lime",
        "modality-shapley",
        "antithetic-shapley",
        "leverage-shap",
        "fold-over-lime",
    } <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("block_size", [1, 7, 1000])
def test_blocks_cover_every_evaluation_once_and_in_order(name: str, block_size: int) -> None:
    case = fake_case(SHAPES, donors=2)
    setting = fake_setting(METHODS[name], case, linear_formula(SHAPES), SMALLER.get(name), block_size=block_size)
    plan = METHODS[name].plan(setting)
    covered = [index for block in plan.blocks for index in range(block.start, block.stop)]
    assert covered == list(range(plan.evaluations))
    assert all(block.stop > block.start for block in plan.blocks)


@pytest.mark.parametrize("name", METHODS)
def test_unchanged_is_told_exactly(name: str, explained: dict[str, Explained]) -> None:
    plan, volumes = explained[name].plan, explained[name].setting.case.volumes
    assert plan.unchanged.shape == (plan.evaluations,)
    for index in range(plan.evaluations):
        perturbed = [volume.copy() for volume in volumes]
        plan.perturbation(index).write(perturbed)
        same = all(np.array_equal(ours, theirs) for ours, theirs in zip(perturbed, volumes, strict=True))
        assert same == plan.unchanged[index]


@pytest.mark.parametrize("name", METHODS)
def test_write_and_restore_leave_the_case_as_it_was(name: str, explained: dict[str, Explained]) -> None:
    plan, volumes = explained[name].plan, explained[name].setting.case.volumes
    workspace = [volume.copy() for volume in volumes]
    for index in range(0, plan.evaluations, 5):
        perturbation: Perturbation = plan.perturbation(index)
        perturbation.write(workspace)
        perturbation.restore(workspace, volumes)
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(workspace, volumes, strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_what_changes_nothing_is_counted_as_saved(name: str, explained: dict[str, Explained]) -> None:
    run = explained[name]
    estimate = run.method.estimate(run.plan, run.scores, run.all_done)
    assert estimate.saved == run.plan.evaluations - run.evaluated == int(run.plan.unchanged.sum())


@pytest.mark.parametrize("name", METHODS)
def test_an_estimate_does_not_look_at_scores_that_are_not_done(name: str, explained: dict[str, Explained]) -> None:
    run = explained[name]
    done = np.arange(run.plan.evaluations) < run.plan.evaluations * 2 // 3
    with_zeros = run.method.estimate(run.plan, np.where(done, run.scores, 0.0), done)
    with_nan = run.method.estimate(run.plan, np.where(done, run.scores, np.nan), done)
    for ours, theirs in zip(_arrays(with_zeros), _arrays(with_nan), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", METHODS)
def test_nothing_done_is_nothing_known(name: str, explained: dict[str, Explained]) -> None:
    run = explained[name]
    estimate = run.method.estimate(run.plan, run.scores, np.zeros(run.plan.evaluations, dtype=np.bool_))
    for values in _arrays(estimate):
        assert np.isnan(values[values != 0.0]).all()
        assert np.isnan(values).any()
    assert estimate.completeness_gap is None
    assert estimate.standard_error is None
    assert estimate.saved == 0


@pytest.mark.parametrize("name", METHODS)
def test_a_whole_run_knows_every_value(name: str, explained: dict[str, Explained]) -> None:
    run = explained[name]
    estimate = run.method.estimate(run.plan, run.scores, run.all_done)
    assert all(np.isfinite(values).all() for values in _arrays(estimate))
    assert any(np.abs(values).max() > 1e-3 for values in _arrays(estimate))
    for coverage in estimate.coverage or ():
        assert (coverage == 1.0).all()


@pytest.mark.parametrize("name", METHODS)
def test_estimates_are_pure(name: str, explained: dict[str, Explained]) -> None:
    run = explained[name]
    scores, done = run.scores.copy(), run.all_done
    first = run.method.estimate(run.plan, scores, done)
    second = run.method.estimate(run.plan, scores, done)
    np.testing.assert_array_equal(scores, run.scores)
    for ours, theirs in zip(_arrays(first), _arrays(second), strict=True):
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", METHODS)
def test_block_size_changes_no_value(name: str, explained: dict[str, Explained]) -> None:
    run, other = explained[name], _explained(name, block_size=3)
    one = run.method.estimate(run.plan, run.scores, run.all_done)
    two = other.method.estimate(other.plan, other.scores, other.all_done)
    for ours, theirs in zip(_arrays(one), _arrays(two), strict=True):
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", METHODS)
def test_the_count_on_the_spec_is_close_to_the_plan(name: str, explained: dict[str, Explained]) -> None:
    run = explained[name]
    counted = run.method.count_evaluations(run.setting.params, SHAPES)
    donors = 2 if name == "feature-permutation" else 1
    assert run.plan.evaluations <= counted * donors + 1
    assert counted * donors <= 3 * run.plan.evaluations


@pytest.mark.parametrize("name", WITH_BASELINE)
def test_the_background_feature_is_exactly_zero_under_a_zero_baseline(name: str, explained: dict[str, Explained]) -> None:
    run = explained[name]
    estimate = run.method.estimate(run.plan, run.scores, run.all_done)
    if estimate.by_feature is not None:
        background = estimate.by_feature.values[0]
        assert background == 0.0
    elif estimate.maps is not None:
        # A corner voxel is covered by one window only, and that window holds nothing but background.
        assert estimate.maps[0][0, 0, 0] == 0.0


@pytest.mark.parametrize("name", METHODS)
def test_standard_errors_belong_to_the_methods_that_have_them(name: str, explained: dict[str, Explained]) -> None:
    run = explained[name]
    estimate = run.method.estimate(run.plan, run.scores, run.all_done)
    sampling = name in {*SAMPLING, "feature-permutation"}
    assert (estimate.standard_error is not None) == sampling
    if sampling:
        assert estimate.by_feature is not None and estimate.by_feature.standard_errors is not None
        errors, values = estimate.by_feature.standard_errors, estimate.by_feature.values
        assert (errors >= 0.0).all() and errors.max() > 0.0
        assert estimate.standard_error == pytest.approx(np.sqrt(np.mean(errors**2)) / np.abs(values).max())


@pytest.mark.parametrize("name", METHODS)
def test_the_completeness_gap_belongs_to_the_methods_that_promise_it(name: str, explained: dict[str, Explained]) -> None:
    run = explained[name]
    estimate = run.method.estimate(run.plan, run.scores, run.all_done)
    promised = name in {"shapley-value-sampling", "kernel-shap", "modality-shapley", "antithetic-shapley", "leverage-shap"}
    assert (estimate.completeness_gap is not None) == promised
    if promised:
        assert abs(estimate.completeness_gap or 0.0) < 1e-4
        zero = [np.zeros_like(volume) for volume in run.setting.case.volumes]
        assert estimate.baseline_score == pytest.approx(interaction_formula(SHAPES)(zero), abs=1e-12)
        total = sum(values.sum() for values in _arrays(estimate))
        expected = run.setting.base_score - (estimate.baseline_score or 0.0) - total
        assert estimate.completeness_gap == pytest.approx(expected, abs=1e-12)


ARCHITECTURES = {
    "one modality": (((12, 11, 10),), False),
    "2D": (((16, 14),) * 2, False),
    "late fusion of different grids": (((12, 10, 8), (9, 9, 9), (16, 6, 7)), True),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", METHODS)
def test_it_runs_with_its_defaults_on_every_architecture(name: str, architecture: str) -> None:
    shapes, late = ARCHITECTURES[architecture]
    run = explain(METHODS[name], fake_case(shapes, donors=1, late=late), interaction_formula(shapes), block_size=64)
    estimate = run.method.estimate(run.plan, run.scores, run.all_done)
    assert all(np.isfinite(values).all() for values in _arrays(estimate))
    assert any(np.abs(values).max() > 1e-6 for values in _arrays(estimate))
    if estimate.maps is not None:
        assert [values.shape for values in estimate.maps] == list(shapes)
    elif estimate.by_feature is not None:
        painted = estimate.by_feature.features.paint(estimate.by_feature.values)
        assert [values.shape for values in painted] == list(shapes)


_IN_ANOTHER_PROCESS = """
from tests.server.methods.test_perturbation_promises import METHODS, SMALLER, SHAPES, _digest
from tests.fakes import fake_case, fake_setting, linear_formula
for name, method in METHODS.items():
    setting = fake_setting(method, fake_case(SHAPES, donors=2), linear_formula(SHAPES), SMALLER.get(name), seed=5)
    print(name, _digest(method.plan(setting)))
"""


def test_another_process_plans_the_same_perturbations(request: pytest.FixtureRequest) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _IN_ANOTHER_PROCESS],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    theirs = dict(line.split() for line in result.stdout.splitlines())
    for name, method in METHODS.items():
        setting = fake_setting(method, fake_case(SHAPES, donors=2), linear_formula(SHAPES), SMALLER.get(name), seed=5)
        assert theirs[name] == _digest(method.plan(setting))


@pytest.mark.parametrize("name", SAMPLING)
def test_another_seed_draws_another_plan(name: str) -> None:
    assert _digest(_explained(name, seed=0).plan) != _digest(_explained(name, seed=1).plan)


@pytest.mark.parametrize("name", WITH_BASELINE)
def test_a_case_that_equals_its_baseline_is_worth_nothing(name: str) -> None:
    case = fake_case(SHAPES)
    empty = type(case)(model=case.model, volumes=tuple(np.zeros_like(v) for v in case.volumes), grids=case.grids)
    run = explain(METHODS[name], empty, interaction_formula(SHAPES), SMALLER.get(name))
    estimate = run.method.estimate(run.plan, run.scores, run.all_done)
    assert run.evaluated == 0
    assert all((values == 0.0).all() for values in _arrays(estimate))
