"""Feature permutation against its definition and against Captum."""

from __future__ import annotations

from dataclasses import replace

import captum.attr
import numpy as np
import pytest
import torch
from voxplain.errors import UnsupportedByModel
from voxplain.v1 import method_pb2
from voxplain_server.methods.feature_permutation import METHOD
from voxplain_server.models.traits import ModelTraits

from tests.fakes import explain, fake_case, fake_setting, interaction_formula
from tests.server.methods.smooth_network import SmoothNetwork, network_formula, network_input

SHAPES = ((9, 8, 8),) * 2
PARAMS = method_pb2.FeaturePermutation(
    grouping=method_pb2.FeatureGrouping(slic=method_pb2.SlicGrouping(segments=6), shared=True)
)


def test_it_is_the_mean_drop_over_donors_and_its_error_their_spread() -> None:
    case, formula = fake_case(SHAPES, donors=3), interaction_formula(SHAPES)
    run = explain(METHOD, case, formula, PARAMS)
    found = METHOD.estimate(run.plan, run.scores, run.all_done).by_feature
    assert found is not None and found.standard_errors is not None
    for feature in range(found.features.count):
        drops = []
        for donor in case.donors:
            mixed = [
                np.where(labels == feature, theirs, ours)
                for ours, theirs, labels in zip(case.volumes, donor, found.features.labels, strict=True)
            ]
            drops.append(formula(case.volumes) - formula(mixed))
        assert found.values[feature] == pytest.approx(np.mean(drops), abs=1e-12)
        assert found.standard_errors[feature] == pytest.approx(np.std(drops, ddof=1) / np.sqrt(3), abs=1e-12)


def test_with_one_donor_it_equals_the_row_of_captum_that_picks_it() -> None:
    case, network = fake_case(SHAPES, donors=1), SmoothNetwork(2)
    batch = torch.cat([network_input(case.volumes), network_input(case.donors[0])])
    network(batch)
    run = explain(METHOD, case, network_formula(network), PARAMS)
    estimate = METHOD.estimate(run.plan, run.scores, run.all_done)
    found = estimate.by_feature
    assert found is not None and found.standard_errors is None and estimate.standard_error is None
    mask = torch.from_numpy(np.stack(found.features.labels).astype(np.int64))[None]

    def swap(cases: torch.Tensor, feature: torch.Tensor) -> torch.Tensor:
        return torch.where(feature.bool(), cases.flip(0), cases)

    with torch.no_grad():
        theirs = captum.attr.FeaturePermutation(network, perm_func=swap).attribute(batch, feature_mask=mask)[0].numpy()
    ours = np.stack(found.features.paint(found.values))
    assert np.abs(ours - theirs).max() <= 1e-9 * np.abs(theirs).max()


def test_a_snapshot_averages_the_donors_done_so_far() -> None:
    case, formula = fake_case(SHAPES, donors=3), interaction_formula(SHAPES)
    run = explain(METHOD, case, formula, PARAMS)
    features = run.plan.evaluations // 3
    done = np.arange(run.plan.evaluations) < features + 2
    found = METHOD.estimate(run.plan, run.scores, done).by_feature
    assert found is not None and found.standard_errors is None
    drops = run.setting.base_score - run.scores.reshape(3, features)
    np.testing.assert_allclose(found.values[:2], drops[:2, :2].mean(axis=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.values[2:], drops[0, 2:], rtol=0, atol=1e-12)


def test_without_donors_it_is_refused() -> None:
    setting = fake_setting(METHOD, fake_case(SHAPES), interaction_formula(SHAPES), PARAMS)
    with pytest.raises(UnsupportedByModel) as refused:
        METHOD.plan(setting)
    assert refused.value.reason == "NO_DONORS"


def test_a_donor_of_another_shape_is_refused() -> None:
    case = fake_case(SHAPES, donors=1)
    smaller = tuple(volume[:-1] for volume in case.donors[0])
    setting = fake_setting(METHOD, replace(case, donors=(smaller,)), interaction_formula(SHAPES), PARAMS)
    with pytest.raises(UnsupportedByModel) as refused:
        METHOD.plan(setting)
    assert refused.value.reason == "BASELINE_GRID_DIFFERS"


def test_a_model_without_background_cases_is_remarked_but_not_ruled_out() -> None:
    model = fake_case(SHAPES).model
    remarks = METHOD.remarks(METHOD.defaults(model), model, ModelTraits())
    assert [(remark.reason, remark.fatal) for remark in remarks] == [("NO_DONORS", False)]
    assert not METHOD.remarks(METHOD.defaults(model), model, ModelTraits(background_cases=2))
