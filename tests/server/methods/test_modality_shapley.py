"""Modality Shapley values against brute force and the axioms."""

from __future__ import annotations

from dataclasses import replace

import captum.attr
import numpy as np
import pytest
import torch
from voxplain.errors import UnsupportedByModel
from voxplain.v1 import method_pb2
from voxplain_server.methods.modality_shapley import METHOD
from voxplain_server.models.traits import ModelTraits

from tests.fakes import brute_force_shapley, explain, fake_case, fake_setting, interaction_formula
from tests.server.methods.smooth_network import SmoothNetwork, network_formula, network_input

SHAPES = ((6, 6, 6),) * 4


def test_it_equals_brute_force() -> None:
    case, formula = fake_case(SHAPES), interaction_formula(SHAPES)
    mean = method_pb2.Baseline(modality_mean=method_pb2.ModalityMeanBaseline())
    run = explain(METHOD, case, formula, method_pb2.ModalityShapley(baseline=mean))
    estimate = METHOD.estimate(run.plan, run.scores, run.all_done)

    def game(present: frozenset[int]) -> float:
        return formula(
            [
                volume if modality in present else np.full_like(volume, volume.mean(dtype=np.float64))
                for modality, volume in enumerate(case.volumes)
            ]
        )

    assert estimate.modality_values is not None
    np.testing.assert_allclose(estimate.modality_values, brute_force_shapley(4, game), rtol=0, atol=1e-12)
    assert estimate.completeness_gap == pytest.approx(0.0, abs=1e-12)
    assert estimate.baseline_score == pytest.approx(game(frozenset()), abs=1e-12)


def test_it_equals_captums_exact_shapley_values() -> None:
    case, network = fake_case(SHAPES), SmoothNetwork(4)
    network(network_input(case.volumes))
    run = explain(METHOD, case, network_formula(network))
    values = METHOD.estimate(run.plan, run.scores, run.all_done).modality_values
    assert values is not None
    mask = torch.arange(4).reshape(1, 4, 1, 1, 1)
    with torch.no_grad():
        theirs = captum.attr.ShapleyValues(network).attribute(network_input(case.volumes), feature_mask=mask)
    expected = theirs[0, :, 0, 0, 0].numpy()
    assert np.abs(values - expected).max() <= 1e-6 * np.abs(expected).max()


def test_late_fusion_modalities_may_have_any_shape() -> None:
    shapes = ((6, 6, 6), (5, 8, 4), (7, 7, 3))
    run = explain(METHOD, fake_case(shapes, late=True), interaction_formula(shapes))
    values = METHOD.estimate(run.plan, run.scores, run.all_done).modality_values
    assert run.plan.evaluations == 8 and run.evaluated == 7
    assert values is not None and np.abs(values).min() > 0.0


def test_a_modality_that_equals_its_baseline_is_worth_exactly_zero_and_costs_nothing() -> None:
    case = fake_case(SHAPES)
    empty = replace(case, volumes=(case.volumes[0], np.zeros_like(case.volumes[1]), *case.volumes[2:]))
    run = explain(METHOD, empty, interaction_formula(SHAPES))
    values = METHOD.estimate(run.plan, run.scores, run.all_done).modality_values
    assert values is not None and values[1] == 0.0
    assert run.plan.evaluations == 8


def test_more_than_ten_modalities_are_refused() -> None:
    shapes = ((2, 2, 2),) * 11
    case = fake_case(shapes)
    remarks = METHOD.remarks(METHOD.defaults(case.model), case.model, ModelTraits())
    assert [(remark.reason, remark.fatal) for remark in remarks] == [("TOO_MANY_MODALITIES", True)]
    with pytest.raises(UnsupportedByModel) as refused:
        METHOD.plan(fake_setting(METHOD, case, interaction_formula(shapes)))
    assert refused.value.reason == "TOO_MANY_MODALITIES"
    ten = fake_case(((2, 2, 2),) * 10).model
    assert not METHOD.remarks(METHOD.defaults(ten), ten, ModelTraits())


def test_it_says_nothing_before_all_coalitions_are_done() -> None:
    run = explain(METHOD, fake_case(SHAPES), interaction_formula(SHAPES))
    done = run.all_done
    done[3] = False
    estimate = METHOD.estimate(run.plan, run.scores, done)
    assert estimate.modality_values is not None and np.isnan(estimate.modality_values).all()
    assert estimate.completeness_gap is None
