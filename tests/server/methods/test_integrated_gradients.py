"""Integrated gradients: a Riemann sum, Captum, completeness, and a pass at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from voxplain import errors
from voxplain.v1 import method_pb2
from voxplain_server.methods.integrated_gradients import METHOD

from tests.server.engines.tiny_models import TINY_MODELS, early, fixed, knee, late, segmentation
from tests.server.methods.gradient_setting import (
    Make,
    Peer,
    assert_parity,
    attribute,
    by_modality,
    engine,
    peer_inputs,
    setting,
)

BATCHED = [make for make in TINY_MODELS if not make.__name__.startswith(("fixed", "knee"))]
MEAN = method_pb2.Baseline(modality_mean=method_pb2.ModalityMeanBaseline())


@pytest.mark.parametrize("make", BATCHED, ids=lambda make: make.__name__)
def test_it_equals_captum_on_the_twin(make: Make, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    means = tuple(np.full(volume.shape, volume.mean(dtype=np.float64), dtype=np.float32) for volume in tiny.case.volumes)
    baselines = tuple(tensor.detach() for tensor in peer_inputs(tiny, means))
    expected = IntegratedGradients(Peer(tiny)).attribute(peer_inputs(tiny), baselines, n_steps=9)
    assert_parity(attribute(tiny, METHOD, baseline=MEAN, steps=9).maps, by_modality(tiny, expected))


@pytest.mark.parametrize("make", [early, late, knee, segmentation], ids=lambda make: make.__name__)
def test_it_approaches_a_fine_riemann_sum(make: Make, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    scored = engine(tiny).scored(tiny.score)
    case = [torch.tensor(volume).double()[None] for volume in tiny.case.volumes]
    steps = 80
    sums = [torch.zeros_like(volume) for volume in case]
    for step in range(steps):
        point = [((step + 0.5) / steps * volume).requires_grad_() for volume in case]
        for total, gradient in zip(sums, torch.autograd.grad(scored(*point)[0], point), strict=True):
            total += gradient / steps
    expected = [(total * volume)[0].numpy() for total, volume in zip(sums, case, strict=True)]
    assert_parity(attribute(tiny, METHOD).maps, expected, bound=2e-2)


@pytest.mark.parametrize("make", TINY_MODELS, ids=lambda make: make.__name__)
def test_the_gap_is_what_the_map_lacks(make: Make, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    scored = engine(tiny).scored(tiny.score)
    case = [torch.tensor(volume).double()[None] for volume in tiny.case.volumes]
    f_case, f_zero = (float(scored(*point)[0].detach()) for point in (case, [0 * volume for volume in case]))
    estimate = attribute(tiny, METHOD)
    assert estimate.maps is not None and estimate.completeness_gap is not None
    total = sum(values.sum() for values in estimate.maps)
    assert estimate.baseline_score == pytest.approx(f_zero, abs=1e-12)
    assert estimate.completeness_gap == pytest.approx(f_case - f_zero - total, abs=1e-12)
    assert abs(estimate.completeness_gap) < 0.03 * abs(f_case - f_zero)


def test_one_node_is_the_gradient_half_way(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    halves = [torch.tensor(0.5 * volume).double()[None].requires_grad_() for volume in tiny.case.volumes]
    gradients = torch.autograd.grad(engine(tiny).scored(tiny.score)(*halves)[0], halves)
    expected = [(2 * half * gradient)[0].detach().numpy() for half, gradient in zip(halves, gradients, strict=True)]
    assert_parity(attribute(tiny, METHOD, steps=1).maps, expected)


def test_each_pass_holds_one_case_and_is_told(tmp_path: Path) -> None:
    tiny = fixed(tmp_path)
    twin = engine(tiny)
    rows: list[int] = []
    twin._twin.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].shape[0]))
    told: list[int] = []
    METHOD.attribute(setting(tiny, METHOD, steps=6), twin, advanced=told.append, cancelled=lambda: False)
    assert told == [1, 2, 3, 4, 5, 6]
    assert rows == [1] * 8


def test_a_cancelled_call_stops_before_the_next_pass(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    told: list[int] = []
    with pytest.raises(errors.Cancelled):
        METHOD.attribute(setting(tiny, METHOD), engine(tiny), advanced=told.append, cancelled=lambda: len(told) == 3)
    assert told == [1, 2, 3]


@pytest.mark.parametrize(("steps", "refused"), [(0, True), (1, False), (1_000, False), (1_001, True), (2**31, True)])
def test_absurd_step_counts_are_refused(steps: int, refused: bool, tmp_path: Path) -> None:
    tiny = early(tmp_path)
    found = METHOD.violations(setting(tiny, METHOD, steps=steps).params, tiny.model)
    assert [violation.field for violation in found] == (["steps"] if refused else [])
