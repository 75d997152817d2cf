"""SmoothGrad: an explicit loop over the drawn noise, Captum given the same noise, and its standard errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from voxplain import errors
from voxplain_server.methods.draws import philox
from voxplain_server.methods.smooth_grad import METHOD

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
STD = 0.3


def noise(tiny: TinyModel, sample: int) -> tuple[np.ndarray, ...]:
    """What sample `sample` adds to each modality."""
    return tuple(
        philox(SEED, "smooth-grad", "noise", sample, modality).standard_normal(volume.shape, dtype=np.float32)
        for modality, volume in enumerate(tiny.case.volumes)
    )


def sampled_gradients(tiny: TinyModel, samples: int) -> list[list[np.ndarray]]:
    """The gradient at each noisy copy, written out."""
    scored = engine(tiny).scored(tiny.score)
    found = []
    for sample in range(samples):
        point = [
            torch.from_numpy(volume.astype(np.float64) + STD * drawn.astype(np.float64))[None].requires_grad_()
            for volume, drawn in zip(tiny.case.volumes, noise(tiny, sample), strict=True)
        ]
        found.append([gradient[0].numpy() for gradient in torch.autograd.grad(scored(*point)[0], point)])
    return found


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("make", TINY_MODELS, ids=lambda make: make.__name__)
def test_it_is_the_mean_over_noisy_copies_with_its_standard_error(make: Make, absolute: bool, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    gradients = sampled_gradients(tiny, 4)
    per_modality = [np.stack(each) for each in zip(*gradients, strict=True)]
    samples = [np.abs(each) for each in per_modality] if absolute else per_modality
    estimate = attribute(tiny, METHOD, samples=4, noise_std=STD, absolute=absolute)
    assert_parity(estimate.maps, [each.mean(axis=0) for each in samples])
    standard_errors = [each.std(axis=0, ddof=1) / 2.0 for each in samples]
    assert_parity(estimate.standard_error_maps, standard_errors)
    joined = np.concatenate([each.ravel() for each in standard_errors])
    largest = max(np.abs(each.mean(axis=0)).max() for each in samples)
    assert estimate.standard_error == pytest.approx(np.sqrt(np.mean(joined**2)) / largest)
    assert estimate.signed is not absolute
    assert estimate.passes == 4


@pytest.mark.parametrize("make", [early, late], ids=lambda make: make.__name__)
def test_it_equals_captum_given_the_same_noise(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = make(tmp_path)
    samples = 3
    drawn = [peer_inputs(tiny, noise(tiny, sample)) for sample in range(samples)]
    stacked = iter([torch.cat([STD * each[number].detach() for each in drawn]) for number in range(len(tiny.model.inputs))])

    def given(mean: Any, std: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        return _next(stacked, std)

    monkeypatch.setattr(torch, "normal", given)
    expected = NoiseTunnel(Saliency(Peer(tiny))).attribute(
        peer_inputs(tiny), nt_type="smoothgrad", nt_samples=samples, stdevs=STD, abs=True
    )
    assert_parity(attribute(tiny, METHOD, samples=samples, noise_std=STD).maps, by_modality(tiny, expected))


def _next(stacked: Iterator[torch.Tensor], std: torch.Tensor) -> torch.Tensor:
    found = next(stacked)
    assert found.shape == std.shape
    return found


def test_equal_seeds_give_equal_maps_and_other_seeds_others(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    first, again = (attribute(tiny, METHOD, samples=2).maps for _ in range(2))
    other = METHOD.attribute(
        setting(tiny, METHOD, seed=8, samples=2), engine(tiny), advanced=lambda passes: None, cancelled=lambda: False
    ).maps
    assert first is not None and again is not None and other is not None
    assert [values.tobytes() for values in first] == [values.tobytes() for values in again]
    assert first[0].tobytes() != other[0].tobytes()


def test_more_samples_begin_with_the_same_ones(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    one, two = (attribute(tiny, METHOD, samples=samples, noise_std=STD, absolute=False).maps for samples in (1, 2))
    assert one is not None and two is not None
    second = sampled_gradients(tiny, 2)[1]
    assert_parity(two, [(mine + other) / 2 for mine, other in zip(one, second, strict=True)])


def test_one_sample_has_no_standard_error(tmp_path: Path) -> None:
    estimate = attribute(early(tmp_path), METHOD, samples=1)
    assert estimate.standard_error is None
    assert estimate.standard_error_maps is None


def test_without_noise_it_is_the_absolute_gradient(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    expected = by_modality(tiny, Saliency(Peer(tiny)).attribute(peer_inputs(tiny), abs=True))
    estimate = attribute(tiny, METHOD, samples=2, noise_std=0.0)
    assert_parity(estimate.maps, expected)
    assert estimate.standard_error == 0.0


def test_each_pass_holds_one_case(tmp_path: Path) -> None:
    tiny = fixed(tmp_path)
    twin = engine(tiny)
    rows: list[int] = []
    twin._twin.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].shape[0]))
    METHOD.attribute(setting(tiny, METHOD), twin, advanced=lambda passes: None, cancelled=lambda: False)
    assert rows == [1] * 10


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


def test_a_call_that_is_cancelled_before_the_first_pass_gives_nothing(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    with pytest.raises(errors.Cancelled):
        METHOD.attribute(setting(tiny, METHOD), engine(tiny), advanced=lambda passes: None, cancelled=lambda: True)


@pytest.mark.parametrize(
    ("changes", "field"), [({"samples": 0}, "samples"), ({"samples": 10_001}, "samples"), ({"noise_std": -0.1}, "noise_std")]
)
def test_numbers_out_of_range_are_refused(changes: dict[str, Any], field: str, tmp_path: Path) -> None:
    tiny = early(tmp_path)
    assert [each.field for each in METHOD.violations(setting(tiny, METHOD, **changes).params, tiny.model)] == [field]
    assert not METHOD.violations(METHOD.defaults(tiny.model), tiny.model)
