"""What stands for "absent"."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from voxplain.errors import InvalidSpec, UnsupportedByModel, VoxplainError
from voxplain.v1 import method_pb2
from voxplain_server.methods.baselines import baseline_volumes
from voxplain_server.models.case import Case, Volumes

from tests.fakes import fake_case

SHAPES = ((12, 11, 10), (9, 8, 7))


def _make(baseline: method_pb2.Baseline, case: Case, *, seed: int = 0, key: str = "key") -> Volumes:
    return baseline_volumes(baseline, case, seed=seed, key=key)


ZERO = method_pb2.Baseline(zero=method_pb2.ZeroBaseline())
MEAN = method_pb2.Baseline(modality_mean=method_pb2.ModalityMeanBaseline())
NOISE = method_pb2.Baseline(normal_noise=method_pb2.NormalNoiseBaseline())
BLUR = method_pb2.Baseline(gaussian_blur=method_pb2.GaussianBlurBaseline(sigma_voxels=1.5))
CLIENT = method_pb2.Baseline(client=method_pb2.ClientBaseline())
BACKGROUND = method_pb2.Baseline(background=method_pb2.BackgroundBaseline(case_index=1))


@pytest.mark.parametrize("baseline", [ZERO, MEAN, NOISE, BLUR, CLIENT, BACKGROUND], ids=lambda b: b.WhichOneof("kind"))
def test_every_baseline_looks_like_the_case_and_cannot_be_written(baseline: method_pb2.Baseline) -> None:
    case = fake_case(SHAPES, donors=2, late=True)
    case = replace(case, baseline=tuple(volume + np.float32(1) for volume in case.volumes))
    before = [volume.copy() for volume in case.volumes]
    made = _make(baseline, case)
    for ours, volume, kept in zip(made, case.volumes, before, strict=True):
        assert ours.shape == volume.shape and ours.dtype == np.float32
        assert ours.flags.c_contiguous and not ours.flags.writeable
        np.testing.assert_array_equal(volume, kept)


def test_zero_mean_client_and_background_are_what_they_say() -> None:
    case = fake_case(SHAPES, donors=2, late=True)
    case = replace(case, baseline=tuple(volume + np.float32(1) for volume in case.volumes))
    assert case.baseline is not None
    for modality, volume in enumerate(case.volumes):
        assert not _make(ZERO, case)[modality].any()
        assert (_make(MEAN, case)[modality] == np.float32(volume.mean(dtype=np.float64))).all()
        np.testing.assert_array_equal(_make(CLIENT, case)[modality], case.baseline[modality])
        np.testing.assert_array_equal(_make(BACKGROUND, case)[modality], case.donors[1][modality])


def test_noise_has_mean_and_spread_of_the_whole_volume_and_its_own_draw_for_each_modality() -> None:
    case = fake_case(((30, 30, 30),) * 2)
    made = _make(NOISE, case)
    for noise, volume in zip(made, case.volumes, strict=True):
        assert abs(noise.mean() - volume.mean()) < 5.0 * volume.std() / np.sqrt(volume.size)
        assert noise.std() == pytest.approx(volume.std(), rel=0.03)
    assert abs(np.corrcoef(made[0].ravel(), made[1].ravel())[0, 1]) < 0.03
    np.testing.assert_array_equal(_make(NOISE, case)[0], made[0])
    assert not np.array_equal(_make(NOISE, case, seed=1)[0], made[0])
    assert not np.array_equal(_make(NOISE, case, key="other")[0], made[0])


def _blurred(volume: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    """A Gaussian sum along each axis in turn, edges repeated, cut at four sigma."""
    radius = int(4.0 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in range(volume.ndim):
        padding = [(radius, radius) if each == axis else (0, 0) for each in range(volume.ndim)]
        padded = np.pad(volume, padding, mode="edge")
        volume = np.apply_along_axis(lambda line: np.convolve(line, weights, mode="valid"), axis, padded)
    return volume


def test_blur_is_a_gaussian_of_that_many_voxels() -> None:
    case = fake_case(SHAPES, late=True)
    for ours, volume in zip(_make(BLUR, case), case.volumes, strict=True):
        np.testing.assert_allclose(ours, _blurred(volume.astype(np.float64), 1.5), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("baseline", "kind", "reason"),
    [
        (CLIENT, InvalidSpec, "BASELINE_NOT_SENT"),
        (BACKGROUND, InvalidSpec, "NO_SUCH_BACKGROUND_CASE"),
        (method_pb2.Baseline(), InvalidSpec, "BASELINE_MISSING"),
    ],
)
def test_a_baseline_that_is_not_there_is_refused(baseline: method_pb2.Baseline, kind: type[VoxplainError], reason: str) -> None:
    with pytest.raises(kind) as refused:
        _make(baseline, fake_case(SHAPES, donors=1, late=True))
    assert refused.value.reason == reason


def test_a_background_case_of_another_shape_is_refused() -> None:
    case = fake_case(SHAPES, donors=2, late=True)
    other = replace(case, donors=(case.donors[0], tuple(volume[1:] for volume in case.donors[1])))
    with pytest.raises(UnsupportedByModel) as refused:
        _make(BACKGROUND, other)
    assert refused.value.reason == "BASELINE_GRID_DIFFERS"
