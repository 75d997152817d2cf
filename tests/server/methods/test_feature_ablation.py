"""Feature ablation against its definition and against Captum."""

from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import torch
from voxplain.v1 import method_pb2
from voxplain_server.methods.feature_ablation import METHOD, FeatureAblationPlan

from tests.fakes import explain, fake_case, interaction_formula
from tests.server.methods.smooth_network import SmoothNetwork, network_formula, network_input

SHAPES = ((10, 9, 8),) * 2
SLIC = method_pb2.FeatureGrouping(slic=method_pb2.SlicGrouping(segments=6))
MEAN = method_pb2.Baseline(modality_mean=method_pb2.ModalityMeanBaseline())


@pytest.mark.parametrize("shared", [False, True])
def test_it_equals_the_definition(shared: bool) -> None:
    case, formula = fake_case(SHAPES), interaction_formula(SHAPES)
    grouping = method_pb2.FeatureGrouping(slic=SLIC.slic, shared=shared)
    run = explain(METHOD, case, formula, method_pb2.FeatureAblation(baseline=MEAN, grouping=grouping))
    found = METHOD.estimate(run.plan, run.scores, run.all_done).by_feature
    assert found is not None and found.features.shared == shared
    painted = found.features.paint(found.values)
    for feature in range(found.features.count):
        ablated = [volume.copy() for volume in case.volumes]
        for volume, labels in zip(ablated, found.features.labels, strict=True):
            volume[labels == feature] = volume.mean(dtype=np.float64)
        # Means are taken before any voxel changes.
        ablated = [
            np.where(labels == feature, np.float32(original.mean(dtype=np.float64)), original)
            for original, labels in zip(case.volumes, found.features.labels, strict=True)
        ]
        drop = formula(case.volumes) - formula(ablated)
        assert found.values[feature] == pytest.approx(drop, abs=1e-12)
        for values, labels in zip(painted, found.features.labels, strict=True):
            assert (values[labels == feature] == found.values[feature]).all()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.usefixtures("captum_in_float64")
def test_it_equals_captum_in_float64(shared: bool) -> None:
    case, network = fake_case(SHAPES), SmoothNetwork(2)
    network(network_input(case.volumes))
    grouping = method_pb2.FeatureGrouping(slic=SLIC.slic, shared=shared)
    run = explain(METHOD, case, network_formula(network), method_pb2.FeatureAblation(baseline=MEAN, grouping=grouping))
    found = METHOD.estimate(run.plan, run.scores, run.all_done).by_feature
    assert found is not None and isinstance(run.plan, FeatureAblationPlan)
    with torch.no_grad():
        theirs = (
            captum.attr.FeatureAblation(network)
            .attribute(
                network_input(case.volumes),
                baselines=network_input(run.plan.source),
                feature_mask=torch.from_numpy(np.stack(found.features.labels).astype(np.int64))[None],
            )[0]
            .numpy()
        )
    ours = np.stack(found.features.paint(found.values))
    assert np.abs(ours - theirs).max() <= 1e-9 * np.abs(theirs).max()


def test_the_largest_features_come_first_and_coverage_says_so() -> None:
    run = explain(METHOD, fake_case(SHAPES), interaction_formula(SHAPES), method_pb2.FeatureAblation(grouping=SLIC))
    assert isinstance(run.plan, FeatureAblationPlan)
    sizes = [sum(region.voxels for region in run.plan.perturbation(index).regions) for index in range(run.plan.evaluations)]
    assert sizes == sorted(sizes, reverse=True)
    done = np.arange(run.plan.evaluations) < 4
    estimate = METHOD.estimate(run.plan, run.scores, done)
    assert estimate.by_feature is not None and estimate.coverage is not None
    assert np.isfinite(estimate.by_feature.values).sum() == 4
    covered = sum(int((coverage == 1.0).sum()) for coverage in estimate.coverage)
    assert covered == sum(sizes[:4])
    for values, coverage in zip(estimate.by_feature.features.paint(estimate.by_feature.values), estimate.coverage, strict=True):
        np.testing.assert_array_equal(np.isnan(values), coverage == 0.0)


def test_the_background_changes_under_another_baseline() -> None:
    run = explain(
        METHOD, fake_case(SHAPES), interaction_formula(SHAPES), method_pb2.FeatureAblation(grouping=SLIC, baseline=MEAN)
    )
    found = METHOD.estimate(run.plan, run.scores, run.all_done).by_feature
    assert found is not None and found.values[0] != 0.0
    assert not run.plan.unchanged.any()
