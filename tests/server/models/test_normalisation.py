"""Normalisation by a case's own non-zero voxels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms.intensity.array import NormalizeIntensity
from voxplain_server.models.normalisation import Statistics, measure, normalise


@given(st.integers(0, 2**31), st.floats(-1e4, 1e4), st.floats(1e-2, 1e4))
@settings(max_examples=50, deadline=None)
def test_the_non_zero_voxels_get_mean_zero_and_deviation_one(seed: int, shift: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    volume = np.where(rng.random((5, 6, 7)) < 0.6, rng.normal(shift, scale, (5, 6, 7)), 0.0).astype(np.float32)
    inside = volume != 0
    statistics = measure(volume, "nonzero-zscore")
    assert statistics.mean == pytest.approx(volume[inside].mean(dtype=np.float64), rel=1e-9, abs=1e-9 * scale)
    assert statistics.std == pytest.approx(volume[inside].std(dtype=np.float64), rel=1e-9)
    expected = (volume[inside].astype(np.float64) - statistics.mean) / statistics.std
    normalise(volume, statistics)
    assert not volume[~inside].any()
    np.testing.assert_array_equal(volume[inside], expected.astype(np.float32))


def test_it_equals_monais_transform() -> None:
    rng = np.random.default_rng(1)
    volume = np.where(rng.random((8, 9, 10)) < 0.5, rng.uniform(50, 900, (8, 9, 10)), 0.0).astype(np.float32)
    expected = np.asarray(NormalizeIntensity(nonzero=True)(volume.copy()))
    normalise(volume, measure(volume, "nonzero-zscore"))
    np.testing.assert_allclose(volume, expected, atol=1e-5)


def test_none_leaves_a_volume_alone() -> None:
    volume = np.arange(8.0, dtype=np.float32).reshape(2, 2, 2)
    assert measure(volume, "none") == Statistics()
    kept = volume.copy()
    normalise(volume, Statistics())
    assert np.array_equal(volume, kept)


def test_a_constant_volume_is_centred_and_told() -> None:
    volume = np.full((3, 3, 3), 41.3, dtype=np.float32)
    statistics = measure(volume, "nonzero-zscore")
    assert (statistics.std, statistics.caution) == (1.0, "CONSTANT_VOLUME")
    normalise(volume, statistics)
    assert np.isfinite(volume).all()
    assert abs(volume).max() < 1e-5


def test_an_empty_volume_stays_empty_and_is_told() -> None:
    volume = np.zeros((3, 3, 3), dtype=np.float32)
    statistics = measure(volume, "nonzero-zscore")
    assert statistics == Statistics(caution="EMPTY_VOLUME")
    normalise(volume, statistics)
    assert not volume.any()


def test_a_small_spread_on_a_large_offset_keeps_its_digits() -> None:
    rng = np.random.default_rng(2)
    volume = (1e6 + rng.normal(0.0, 8.0, (16, 16, 16))).astype(np.float32)
    assert measure(volume, "nonzero-zscore").std == pytest.approx(volume.astype(np.float64).std(), rel=1e-9)
