"""NIfTI in and out: the array as it is, the affine as the file states it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from voxplain.errors import InvalidTensor
from voxplain.volume import Geometry
from voxplain_client.imaging.nifti import drop_third_axis, read_nifti, write_nifti

# Untyped, whatever stubs an installation has.
nibabel: Any = importlib.import_module("nibabel")

OBLIQUE = np.array([[-1.9, 0.2, 0.1, 90.0], [0.2, 1.9, -0.3, -120.0], [-0.1, 0.3, 2.9, -70.0], [0, 0, 0, 1.0]])


def save(path: Path, voxels: npt.NDArray[Any], *, codes: tuple[int, int] = (1, 4)) -> Path:
    """A file with a qform and an sform code."""
    image = nibabel.Nifti1Image(voxels, OBLIQUE)
    image.set_qform(OBLIQUE, codes[0], strip_shears=True)
    image.set_sform(OBLIQUE, codes[1])
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    return path


def test_a_map_gets_the_affine_the_codes_and_the_units_of_its_volume(tmp_path: Path) -> None:
    volume = read_nifti(save(tmp_path / "t1.nii.gz", np.ones((5, 6, 7), np.int16)), field="--volume t1")
    values = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    write_nifti(tmp_path / "map.nii.gz", values, like=volume, geometry=volume.volume.geometry)
    before, after = nibabel.load(tmp_path / "t1.nii.gz"), nibabel.load(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(after.affine, before.affine)
    np.testing.assert_array_equal(after.get_qform(), before.get_qform())
    assert (int(after.header["qform_code"]), int(after.header["sform_code"])) == (1, 4)
    assert after.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_array_equal(np.asanyarray(after.dataobj), values)
    assert after.get_data_dtype() == np.float32


@pytest.mark.parametrize("codes", [(1, 0), (0, 2), (3, 1)])
def test_whichever_form_a_file_uses_is_kept(codes: tuple[int, int], tmp_path: Path) -> None:
    volume = read_nifti(save(tmp_path / "t1.nii", np.ones((5, 6, 7), np.float32), codes=codes), field="f")
    write_nifti(tmp_path / "map.nii", np.zeros((5, 6, 7), np.float32), like=volume)
    before, after = nibabel.load(tmp_path / "t1.nii"), nibabel.load(tmp_path / "map.nii")
    np.testing.assert_array_equal(after.affine, before.affine)
    assert (int(after.header["qform_code"]), int(after.header["sform_code"])) == codes


def test_voxels_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    volume = read_nifti(save(tmp_path / "t1.nii.gz", voxels), field="f").volume
    np.testing.assert_array_equal(volume.voxels, voxels)
    assert volume.voxels.dtype.kind == "i"
    assert volume.geometry.affine is not None
    np.testing.assert_allclose(volume.geometry.affine, OBLIQUE, atol=1e-5)


def test_a_file_that_states_no_orientation_has_no_affine(tmp_path: Path) -> None:
    path = save(tmp_path / "t1.nii.gz", np.ones((3, 4, 5), np.float32), codes=(0, 0))
    assert read_nifti(path, field="f").volume.geometry.affine is None


def test_scaled_files_are_read_in_their_units(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.linspace(-1.0, 1.0, 60).reshape(3, 4, 5), OBLIQUE)
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "t1.nii.gz")
    voxels: Any = read_nifti(tmp_path / "t1.nii.gz", field="f").volume.voxels
    np.testing.assert_allclose(voxels, np.linspace(-1.0, 1.0, 60).reshape(3, 4, 5), atol=1e-4)


def test_metres_and_microns_become_millimetres(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.ones((3, 4, 5), np.float32), np.diag([2000.0, 2000.0, 3000.0, 1.0]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "t1.nii.gz")
    spacing = read_nifti(tmp_path / "t1.nii.gz", field="f").volume.geometry.spacing_mm
    assert spacing == pytest.approx((2.0, 2.0, 3.0))


def test_a_trailing_axis_of_length_one_is_dropped_and_comes_back(tmp_path: Path) -> None:
    volume = read_nifti(save(tmp_path / "t1.nii.gz", np.ones((3, 4, 5, 1), np.float32)), field="f")
    assert volume.volume.geometry.shape == (3, 4, 5)
    write_nifti(tmp_path / "map.nii.gz", np.ones((3, 4, 5), np.float32), like=volume, geometry=volume.volume.geometry)
    assert nibabel.load(tmp_path / "map.nii.gz").shape == (3, 4, 5, 1)


def test_a_single_slice_serves_a_2d_model_and_its_map_is_a_slice_again(tmp_path: Path) -> None:
    flat = drop_third_axis(read_nifti(save(tmp_path / "t1.nii.gz", np.ones((3, 4, 1), np.float32)), field="f"))
    assert flat.volume.geometry.shape == (3, 4)
    write_nifti(tmp_path / "map.nii.gz", np.ones((3, 4), np.float32), like=flat, geometry=flat.volume.geometry)
    assert nibabel.load(tmp_path / "map.nii.gz").shape == (3, 4, 1)


def test_a_map_on_the_models_grid_gets_that_grids_affine(tmp_path: Path) -> None:
    volume = read_nifti(save(tmp_path / "t1.nii.gz", np.ones((5, 6, 7), np.float32)), field="f")
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    write_nifti(tmp_path / "map.nii.gz", np.ones((2, 3, 4), np.float32), like=volume, geometry=Geometry((2, 3, 4), affine))
    written = nibabel.load(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(written.affine, affine)
    assert int(written.header["sform_code"]) == 4


def test_the_description_and_the_mark_stand_in_the_header_and_nothing_of_the_patient(tmp_path: Path) -> None:
    path = save(tmp_path / "t1.nii.gz", np.ones((3, 4, 5), np.float32))
    named = nibabel.load(path)
    named.header["descrip"], named.header["db_name"], named.header["aux_file"] = b"DOE^JANE", b"DOE", b"DOE"
    named.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"DOE^JANE"))
    nibabel.save(named, tmp_path / "named.nii.gz")
    volume = read_nifti(tmp_path / "named.nii.gz", field="f")
    write_nifti(tmp_path / "map.nii", np.ones((3, 4, 5), np.float32), like=volume, description="PARTIAL 2 of 4", mark="PARTIAL")
    header = nibabel.load(tmp_path / "map.nii").header
    assert bytes(header["descrip"]).rstrip(b"\0") == b"PARTIAL 2 of 4"
    assert header.get_intent()[2] == "PARTIAL"
    assert b"DOE" not in (tmp_path / "map.nii").read_bytes()


def test_what_is_no_nifti_is_refused_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "text.nii.gz").write_text("no")
    (tmp_path / "short.nii").write_bytes(save(tmp_path / "t1.nii", np.ones((9, 9, 9), np.float32)).read_bytes()[:900])
    series = save(tmp_path / "series.nii.gz", np.ones((3, 4, 5, 2), np.float32))
    for path in (tmp_path / "text.nii.gz", tmp_path / "absent.nii.gz", tmp_path / "short.nii", series):
        with pytest.raises(InvalidTensor) as refused:
            read_nifti(path, field="--volume t1")
        assert refused.value.field == "--volume t1"
        assert path.name not in refused.value.message


def test_a_compressed_file_with_any_byte_changed_is_refused_or_read_as_it_was(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    whole = save(tmp_path / "t1.nii.gz", voxels).read_bytes()
    refusals = 0
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x55
        (tmp_path / "changed.nii.gz").write_bytes(changed)
        try:
            read: Any = read_nifti(tmp_path / "changed.nii.gz", field="--volume t1").volume.voxels
        except InvalidTensor as refused:
            assert refused.reason in ("FILE_UNREADABLE", "NOT_NIFTI")
            refusals += 1
        else:
            # The name and the time in gzip's header are under no checksum.
            np.testing.assert_array_equal(read, voxels)
    assert refusals > len(whole) - 30


@pytest.mark.parametrize(
    ("place", "value"),
    [(123, 0x05), (70, 0x77), (108, 0xFF)],
    ids=["unknown-units", "unknown-type", "no-number-as-offset"],
)
def test_a_damaged_header_is_refused_in_words(place: int, value: int, tmp_path: Path) -> None:
    whole = bytearray(save(tmp_path / "t1.nii", np.ones((4, 5, 3), np.float32)).read_bytes())
    whole[place : place + (4 if place == 108 else 1)] = bytes([value] * (4 if place == 108 else 1))
    (tmp_path / "t1.nii").write_bytes(whole)
    with pytest.raises(InvalidTensor) as refused:
        read_nifti(tmp_path / "t1.nii", field="f")
    assert refused.value.reason == "FILE_UNREADABLE"


def test_the_documented_reader_needs_a_path_alone(tmp_path: Path) -> None:
    from voxplain_client.imaging import read_nifti as documented

    nibabel.Nifti1Image(np.ones((2, 3, 4), np.float32), np.diag([2.0, 2.0, 2.0, 1.0])).to_filename(tmp_path / "t1.nii.gz")
    volume = documented(str(tmp_path / "t1.nii.gz")).volume
    assert volume.geometry.spacing_mm == (2.0, 2.0, 2.0)
    with pytest.raises(InvalidTensor, match=r"^path: .*\(FILE_UNREADABLE\)$"):
        documented(tmp_path / "absent.nii.gz")
