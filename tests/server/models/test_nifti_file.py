"""The small NIfTI reader against nibabel."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
from voxplain_server.models.model_refused import ModelRefused
from voxplain_server.models.nifti_file import read_nifti

images: Any = nibabel  # Untyped where it counts here.

AFFINE = np.array([[-2.0, 0.1, 0.0, 90.0], [0.1, 1.5, 0.0, -126.0], [0.0, 0.0, 3.0, -72.0], [0.0, 0.0, 0.0, 1.0]])


def _voxels(dtype: str) -> npt.NDArray[np.generic]:
    return np.random.default_rng(0).uniform(0, 200, (3, 4, 5)).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<f4", ">f4"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_voxels_and_affine_are_nibabels(tmp_path: Path, dtype: str, suffix: str) -> None:
    voxels = _voxels(dtype)
    header = images.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    image = images.Nifti1Image(voxels, AFFINE, header=header)
    images.save(image, tmp_path / f"case{suffix}")
    volume = read_nifti(tmp_path / f"case{suffix}")
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels, voxels.astype(np.float32))
    assert volume.geometry.affine is not None
    np.testing.assert_allclose(volume.geometry.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_the_qform_serves_where_there_is_no_sform(tmp_path: Path, mirror: float) -> None:
    turn = np.deg2rad(30)
    affine = np.diag([2.0, 1.5, 3.0, 1.0])
    affine[:2, :2] = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.diag([2.0, 1.5])
    affine[2, 2] *= mirror
    affine[:3, 3] = (1.0, 2.0, 3.0)
    image = images.Nifti1Image(_voxels("f4"), affine)
    image.set_sform(None, code=0)
    image.set_qform(affine, code=1)
    images.save(image, tmp_path / "case.nii")
    found = read_nifti(tmp_path / "case.nii").geometry.affine
    assert found is not None
    np.testing.assert_allclose(found, images.load(tmp_path / "case.nii").affine, atol=1e-5)


def test_without_either_form_the_affine_is_unknown(tmp_path: Path) -> None:
    images.save(images.Nifti1Image(_voxels("f4"), None), tmp_path / "case.nii")
    assert read_nifti(tmp_path / "case.nii").geometry.affine is None


def test_intensities_are_scaled_as_the_header_says(tmp_path: Path) -> None:
    image = images.Nifti1Image(_voxels("i2"), AFFINE)
    image.header.set_slope_inter(0.5, 10.0)
    images.save(image, tmp_path / "case.nii")
    expected = images.load(tmp_path / "case.nii").get_fdata(dtype=np.float32)
    found = read_nifti(tmp_path / "case.nii").voxels.astype(np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_axes_of_one_at_the_end_are_dropped(tmp_path: Path) -> None:
    images.save(images.Nifti1Image(_voxels("f4")[..., None], AFFINE), tmp_path / "case.nii")
    assert read_nifti(tmp_path / "case.nii").geometry.shape == (3, 4, 5)


def _refused(path: Path, *, max_bytes: int = 1 << 20) -> None:
    with pytest.raises(ModelRefused) as caught:
        read_nifti(path, max_bytes=max_bytes)
    assert caught.value.reason == "BACKGROUND_UNREADABLE"
    assert path.name not in caught.value.message


def test_other_files_are_refused(tmp_path: Path) -> None:
    images.save(images.Nifti1Image(_voxels("f4"), AFFINE), tmp_path / "good.nii")
    good = (tmp_path / "good.nii").read_bytes()
    bad = {
        "empty.nii": b"",
        "short.nii": good[:200],
        "cut.nii": good[:-1],
        "cut.nii.gz": gzip.compress(good)[:-20],
        "no-gzip.nii.gz": good,
        "magic.nii": good[:344] + b"ni1\0" + good[348:],
        "type.nii": good[:70] + (64).to_bytes(2, "little") + good[72:],
        "rank.nii": good[:40] + (5).to_bytes(2, "little") + good[42:50] + b"\2\0\2\0" + good[54:],
        "axis.nii": good[:42] + b"\0\0" + good[44:],
        "negative.nii": good[:42] + b"\xff\xff" + good[44:],
        "offset.nii": good[:108] + np.float32("nan").tobytes() + good[112:],
        "nan.nii": good[:-4] + np.float32("nan").tobytes(),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        _refused(tmp_path / name)
    _refused(tmp_path / "nowhere.nii")
    assert read_nifti(tmp_path / "good.nii").voxels.shape == (3, 4, 5)


def test_a_volume_above_the_limit_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    images.save(images.Nifti1Image(np.zeros((64, 64, 64), np.float32), AFFINE), tmp_path / "bomb.nii.gz")
    _refused(tmp_path / "bomb.nii.gz", max_bytes=1000)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_packed_file_with_one_flipped_byte_is_refused_or_says_the_same(tmp_path: Path, compressed: bool) -> None:
    images.save(images.Nifti1Image(_voxels("i2"), AFFINE), tmp_path / "good.nii")
    good = read_nifti(tmp_path / "good.nii")
    packed = gzip.compress((tmp_path / "good.nii").read_bytes(), compresslevel=9 if compressed else 0, mtime=0)
    path, refused = tmp_path / "bad.nii.gz", 0
    for place in range(len(packed)):
        path.write_bytes(packed[:place] + bytes([packed[place] ^ 0xFF]) + packed[place + 1 :])
        try:
            found = read_nifti(path)
        except ModelRefused:
            refused += 1
        else:
            # Only gzip's own time stamp and the like may change unseen.
            np.testing.assert_array_equal(found.voxels, good.voxels)
            assert place < 10
    assert refused > len(packed) - 10


def test_what_follows_the_voxels_of_a_packed_file_is_bounded(tmp_path: Path) -> None:
    images.save(images.Nifti1Image(_voxels("i2"), AFFINE), tmp_path / "good.nii")
    good = (tmp_path / "good.nii").read_bytes()
    (tmp_path / "some.nii.gz").write_bytes(gzip.compress(good + bytes(1000)))
    assert read_nifti(tmp_path / "some.nii.gz").geometry.shape == (3, 4, 5)
    (tmp_path / "much.nii.gz").write_bytes(gzip.compress(good + bytes(4 << 20)))
    _refused(tmp_path / "much.nii.gz")
