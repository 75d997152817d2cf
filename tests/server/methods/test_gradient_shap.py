"""GradientSHAP: an explicit loop over the draws, Captum given the same draws, and completeness in expectation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import GradientShap
from voxplain import errors
from voxplain.v1 import method_pb2
from voxplain_server.methods.draws import philox
from voxplain_server.methods.gradient_shap import METHOD

from tests.server.engines.tiny_models import TINY_MODELS, TinyModel, early, fixed, late
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

SEED = 7
MEAN = method_pb2.Baseline(modality_mean=method_pb2.ModalityMeanBaseline())


def coefficient(sample: int) -> float:
    """How far sample `sample` lies from the baseline."""
    return float(philox(SEED, "gradient-shap", "coefficient", sample).random())


def noise(tiny: TinyModel, sample: int) -> tuple[np.ndarray, ...]:
    """What sample `sample` adds to each modality."""
    return tuple(
        philox(SEED, "gradient-shap", "noise", sample, modality).standard_normal(volume.shape, dtype=np.float32)
        for modality, volume in enumerate(tiny.case.volumes)
    )


def means(tiny: TinyModel) -> tuple[np.ndarray, ...]:
    return tuple(np.full(volume.shape, volume.mean(dtype=np.float64), dtype=np.float32) for volume in tiny.case.volumes)


def samples_by_hand(tiny: TinyModel, samples: int, std: float) -> list[list[np.ndarray]]:
    """(x_k - b) times the gradient at b + a_k (x_k - b), written out, with the mean of each modality as baseline."""
    scored = engine(tiny).scored(tiny.score)
    found = []
    for sample in range(samples):
        a = coefficient(sample)
        noisy = [
            x.astype(np.float64) + std * e.astype(np.float64)
            for x, e in zip(tiny.case.volumes, noise(tiny, sample), strict=True)
        ]
        base = [b.astype(np.float64) for b in means(tiny)]
        point = [torch.from_numpy(a * x + (1 - a) * b)[None].requires_grad_() for x, b in zip(noisy, base, strict=True)]
        gradients = torch.autograd.grad(scored(*point)[0], point)
        found.append([(x - b) * g[0].numpy() for x, b, g in zip(noisy, base, gradients, strict=True)])
    return found


@pytest.mark.parametrize("std", [0.0, 0.2])
@pytest.mark.parametrize("make", TINY_MODELS, ids=lambda make: make.__name__)
def test_it_is_the_mean_over_random_points_with_its_standard_error(make: Make, std: float, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    samples = samples_by_hand(tiny, 4, std)
    per_modality = [np.stack(each) for each in zip(*samples, strict=True)]
    estimate = attribute(tiny, METHOD, samples=4, noise_std=std, baseline=MEAN)
    assert_parity(estimate.maps, [each.mean(axis=0) for each in per_modality])
    assert_parity(estimate.standard_error_maps, [each.std(axis=0, ddof=1) / 2.0 for each in per_modality])

    scored = engine(tiny).scored(tiny.score)
    f_case, f_base = (
        float(scored(*[torch.tensor(each).double()[None] for each in volumes])[0].detach())
        for volumes in (tiny.case.volumes, means(tiny))
    )
    gaps = [f_case - f_base - sum(each.sum() for each in sample) for sample in samples]
    assert estimate.completeness_gap == pytest.approx(np.mean(gaps), rel=1e-9, abs=1e-12)
    assert estimate.completeness_gap_standard_error == pytest.approx(np.std(gaps, ddof=1) / 2.0, rel=1e-9, abs=1e-12)
    assert estimate.baseline_score == pytest.approx(f_base, abs=1e-12)


@pytest.mark.parametrize("make", [early, late], ids=lambda make: make.__name__)
def test_it_equals_captum_given_the_same_draws(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, samples, std = make(tmp_path), 3, 0.2
    drawn = [peer_inputs(tiny, noise(tiny, sample)) for sample in range(samples)]
    stacked = iter([torch.cat([std * each[number].detach() for each in drawn]) for number in range(len(tiny.model.inputs))])
    monkeypatch.setattr(torch, "normal", lambda *arguments, **options: next(stacked))

    def coefficients(low: float, high: float, size: int) -> Any:
        assert (low, high, size) == (0.0, 1.0, samples)
        return np.array([coefficient(sample) for sample in range(samples)])

    monkeypatch.setattr(np.random, "uniform", coefficients)
    # As many baselines as samples, all equal: Captum draws one for each.
    baselines = tuple(tensor.detach() for tensor in peer_inputs(tiny, means(tiny)))
    expected = GradientShap(Peer(tiny)).attribute(peer_inputs(tiny), baselines, n_samples=samples, stdevs=std)
    found = attribute(tiny, METHOD, samples=samples, noise_std=std, baseline=MEAN)
    assert_parity(found.maps, by_modality(tiny, expected))


def test_the_gap_shrinks_within_its_standard_error(tmp_path: Path) -> None:
    estimate = attribute(early(tmp_path), METHOD, samples=200)
    assert estimate.completeness_gap is not None and estimate.completeness_gap_standard_error is not None
    assert abs(estimate.completeness_gap) < 4 * estimate.completeness_gap_standard_error


def test_one_sample_has_a_gap_but_no_standard_error(tmp_path: Path) -> None:
    estimate = attribute(early(tmp_path), METHOD, samples=1)
    assert estimate.completeness_gap is not None
    assert estimate.completeness_gap_standard_error is None
    assert estimate.standard_error is None


def test_each_pass_holds_one_case_and_is_told(tmp_path: Path) -> None:
    tiny = fixed(tmp_path)
    twin = engine(tiny)
    rows: list[int] = []
    twin._twin.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].shape[0]))
    told: list[int] = []
    METHOD.attribute(setting(tiny, METHOD), twin, advanced=told.append, cancelled=lambda: False)
    assert told == [1, 2, 3, 4, 5]
    assert rows == [1] * 7


def test_a_cancelled_call_stops_before_the_next_pass_with_the_mean_so_far(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    told: list[int] = []
    part = METHOD.attribute(setting(tiny, METHOD), engine(tiny), advanced=told.append, cancelled=lambda: len(told) == 2)
    whole = attribute(tiny, METHOD, samples=2)
    assert told == [1, 2]
    assert part.passes == 2
    assert part.maps is not None and whole.maps is not None
    for mean, expected in zip(part.maps, whole.maps, strict=True):
        np.testing.assert_array_equal(mean, expected)
    assert part.completeness_gap == whole.completeness_gap


def test_a_call_that_is_cancelled_before_the_first_pass_gives_nothing(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    with pytest.raises(errors.Cancelled):
        METHOD.attribute(setting(tiny, METHOD), engine(tiny), advanced=lambda passes: None, cancelled=lambda: True)


@pytest.mark.parametrize(
    ("changes", "field"), [({"samples": 0}, "samples"), ({"samples": 2**31}, "samples"), ({"noise_std": -1.0}, "noise_std")]
)
def test_numbers_out_of_range_are_refused(changes: dict[str, Any], field: str, tmp_path: Path) -> None:
    tiny = early(tmp_path)
    assert [each.field for each in METHOD.violations(setting(tiny, METHOD, **changes).params, tiny.model)] == [field]
    assert not METHOD.violations(METHOD.defaults(tiny.model), tiny.model)
