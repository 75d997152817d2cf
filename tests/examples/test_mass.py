"""Where the mass lies, on maps small enough to add up by hand."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from examples.glioma_demo.case_files import CASES
from examples.glioma_demo.mass import share_mass
from examples.glioma_demo.synthesis import MODALITIES, Modality
from examples.glioma_demo.where_the_mass_lies import main, tabulate, weigh_all

SHAPE = (2, 3, 4)


@pytest.fixture
def tumours() -> dict[Modality, NDArray[np.bool_]]:
    """The first x-half is T1c's tumour; on the others one voxel more, in the second half."""
    masks: dict[Modality, NDArray[np.bool_]] = {}
    for modality in MODALITIES:
        mask = np.zeros(SHAPE, dtype=np.bool_)
        mask[0] = True
        mask[1, 0, 0] = modality != "t1c"
        masks[modality] = mask
    return masks


def write_map(folder: Path, name: str, values: dict[tuple[int, int, int], float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    voxels = np.zeros(SHAPE, dtype=np.float32)
    for index, value in values.items():
        voxels[index] = value
    nib.loadsave.save(nib.nifti1.Nifti1Image(voxels, np.eye(4)), folder / f"{name}.nii.gz")  # type: ignore[no-untyped-call]


def test_positive_and_absolute_mass_are_shared_out_per_modality(
    tmp_path: Path, tumours: dict[Modality, NDArray[np.bool_]]
) -> None:
    write_map(tmp_path / "gradient", "t1c", {(0, 1, 1): 6.0, (1, 1, 1): -2.0})
    write_map(tmp_path / "gradient", "flair", {(1, 0, 0): 3.0, (1, 2, 2): 1.0})
    write_map(tmp_path / "gradient", "t1", {})
    write_map(tmp_path / "gradient", "t2", {(0, 0, 0): -8.0})
    (mass,) = weigh_all(tmp_path, tumours)
    assert mass.method == "gradient"
    assert not mass.shared
    assert (mass.positive.deciding, mass.positive.other, mass.positive.outside) == pytest.approx((0.6, 0.3, 0.1))
    assert (mass.absolute.deciding, mass.absolute.other, mass.absolute.outside) == pytest.approx((0.3, 0.55, 0.15))


def test_a_shared_map_counts_t1cs_outline_first_and_then_the_rest_of_the_others(
    tmp_path: Path, tumours: dict[Modality, NDArray[np.bool_]]
) -> None:
    write_map(tmp_path / "grad-cam", "shared", {(0, 0, 0): 5.0, (1, 0, 0): 3.0, (1, 1, 1): 2.0})
    (mass,) = weigh_all(tmp_path, tumours)
    assert mass.shared
    assert (mass.positive.deciding, mass.positive.other, mass.positive.outside) == pytest.approx((0.5, 0.3, 0.2))


def test_the_method_that_points_at_the_deciding_tumour_most_comes_first(
    tmp_path: Path, tumours: dict[Modality, NDArray[np.bool_]]
) -> None:
    for method, inside in (("gradient", 1.0), ("lime", 9.0), ("occlusion", 3.0)):
        write_map(tmp_path / method, "t1c", {(0, 1, 1): inside, (1, 2, 2): 1.0})
    write_map(tmp_path / "smooth-grad", "t1c", {(0, 0, 0): -1.0})
    assert [mass.method for mass in weigh_all(tmp_path, tumours)] == ["lime", "occlusion", "gradient", "smooth-grad"]


def test_a_map_without_positive_mass_has_no_shares_and_shows_dashes(
    tmp_path: Path, tumours: dict[Modality, NDArray[np.bool_]]
) -> None:
    write_map(tmp_path / "lime", "t1c", {(0, 0, 0): -1.0})
    (mass,) = weigh_all(tmp_path, tumours)
    assert np.isnan([mass.positive.deciding, mass.positive.other, mass.positive.outside]).all()
    assert mass.absolute.deciding == 1.0
    even = share_mass({"t1c": np.ones(SHAPE)}, tumours)
    console = Console(record=True, width=120)
    console.print(tabulate([mass], even=even))
    text = console.export_text()
    lime = next(line for line in text.splitlines() if "lime" in line)
    assert lime.count(" - ") == 3
    assert "100.0" in lime
    assert "50.0" in next(line for line in text.splitlines() if "an even map" in line)


def test_folders_without_maps_and_files_beside_them_are_passed_over(
    tmp_path: Path, tumours: dict[Modality, NDArray[np.bool_]]
) -> None:
    (tmp_path / "modality-shapley").mkdir()
    (tmp_path / "record.json").write_text("{}")
    write_map(tmp_path / "occlusion", "t1_standard_error", {(0, 0, 0): 1.0})
    write_map(tmp_path / "gradient", "t1c", {(0, 0, 0): 1.0})
    assert [mass.method for mass in weigh_all(tmp_path, tumours)] == ["gradient"]


def test_the_command_weighs_a_map_that_is_t1cs_tumour_itself_at_all_of_its_mass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES / "case-1"
    (tmp_path / "gradient").mkdir()
    shutil.copy(case / "tumour_t1c.nii.gz", tmp_path / "gradient" / "t1c.nii.gz")
    monkeypatch.setattr("sys.argv", ["where_the_mass_lies", str(tmp_path), "--case", str(case)])
    main()
    row = next(line for line in capsys.readouterr().out.splitlines() if "gradient" in line)
    assert row.count("100.0") == 2
    assert row.count(" 0.0") == 4


def test_the_command_says_what_to_do_when_there_is_nothing_to_weigh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["where_the_mass_lies", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "explain a case first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("t1c", np.full(SHAPE, np.nan)),
        ("t1c", np.full(SHAPE, -1.0)),
        ("t1c", np.ones((2, 3, 5))),
        ("adc", np.ones(SHAPE)),
    ],
)
def test_weights_that_cannot_be_shared_out_are_refused(
    name: str, weight: NDArray[np.float64], tumours: dict[Modality, NDArray[np.bool_]]
) -> None:
    with pytest.raises(ValueError, match=r"map|weights"):
        share_mass({name: weight}, tumours)
