"""Plain gradient: finite differences, Captum, and what its parameter does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from voxplain import errors
from voxplain_server.methods.gradient import METHOD

from tests.server.engines.tiny_models import TINY_MODELS, early
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

STEP = 1e-5


@pytest.mark.parametrize("make", TINY_MODELS, ids=lambda make: make.__name__)
def test_it_equals_captum_on_the_twin(make: Make, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    expected = by_modality(tiny, Saliency(Peer(tiny)).attribute(peer_inputs(tiny), abs=False))
    estimate = attribute(tiny, METHOD)
    assert_parity(estimate.maps, expected)
    assert estimate.signed
    assert estimate.passes == 1


@pytest.mark.parametrize("make", TINY_MODELS, ids=lambda make: make.__name__)
def test_it_equals_finite_differences(make: Make, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    scored = engine(tiny).scored(tiny.score)
    maps = attribute(tiny, METHOD).maps
    assert maps is not None
    draws = np.random.default_rng(1)
    for modality, volume in enumerate(tiny.case.volumes):
        # Slices that hold zeros alone are equal, and the maximum over slices has a kink there.
        slopes = np.where(volume != 0, np.abs(maps[modality]), 0.0)
        places = np.argwhere(slopes >= np.quantile(slopes, 0.9))
        for place in draws.permutation(places)[:3]:
            scores = []
            for sign in (1, -1):
                volumes = [torch.tensor(each).double()[None] for each in tiny.case.volumes]
                volumes[modality][(0, *place)] += sign * STEP
                scores.append(float(scored(*volumes)[0].detach()))
            slope = (scores[0] - scores[1]) / (2 * STEP)
            assert slope == pytest.approx(maps[modality][tuple(place)], rel=1e-4, abs=1e-8)
        assert volume.shape == maps[modality].shape


def test_absolute_values_are_unsigned(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    signed, unsigned = attribute(tiny, METHOD), attribute(tiny, METHOD, absolute=True)
    assert signed.maps is not None and min(values.min() for values in signed.maps) < 0
    assert_parity(unsigned.maps, [np.abs(values) for values in signed.maps])
    assert not unsigned.signed


def test_a_cancelled_call_starts_no_pass(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    with pytest.raises(errors.Cancelled):
        METHOD.attribute(setting(tiny, METHOD), engine(tiny), advanced=lambda passes: None, cancelled=lambda: True)


def test_float32_agrees_with_float64(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    rough = METHOD.attribute(
        setting(tiny, METHOD), engine(tiny, torch.float32), advanced=lambda passes: None, cancelled=lambda: False
    )
    exact = attribute(tiny, METHOD).maps
    assert exact is not None
    assert_parity(rough.maps, exact, bound=1e-4)
