"""A case as NIfTI files: volumes, tumour masks and case.json."""

import json
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from examples.glioma_demo.case import Case
from examples.glioma_demo.synthesis import MODALITIES, Modality
from examples.glioma_demo.tumour import SHAPES

CASES = Path(__file__).parent / "cases"


def write_volumes(case: Case, folder: Path) -> None:
    """Write `folder/<modality>.nii.gz`, int16: intensities are whole numbers, so reading gives the same voxels."""
    folder.mkdir(parents=True, exist_ok=True)
    for modality in MODALITIES:
        _write(case.volumes[modality].astype(np.int16), case.affine, folder / f"{modality}.nii.gz")


def write_case(case: Case, folder: Path) -> None:
    """Write the volumes, `tumour_<modality>.nii.gz` (uint8, 1 in the tumour) and case.json."""
    write_volumes(case, folder)
    for modality in MODALITIES:
        _write(case.tumours[modality].astype(np.uint8), case.affine, folder / f"tumour_{modality}.nii.gz")
    facts = {
        "declared": "synthetic",
        "seed": case.seed,
        "label": case.label,
        "class": SHAPES[case.label],
        "shapes": dict(case.shapes),
        "flair_agrees": case.flair_agrees,
        "volumes": {modality: f"{modality}.nii.gz" for modality in MODALITIES},
        "tumours": {modality: f"tumour_{modality}.nii.gz" for modality in MODALITIES},
    }
    (folder / "case.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def read_volumes(folder: Path) -> dict[Modality, NDArray[np.float32]]:
    """The case's volumes as they were synthesised."""
    return {modality: read_voxels(folder / f"{modality}.nii.gz") for modality in MODALITIES}


def read_tumours(folder: Path) -> Mapping[Modality, NDArray[np.bool_]]:
    """The case's tumour masks."""
    return {modality: read_voxels(folder / f"tumour_{modality}.nii.gz") > 0.5 for modality in MODALITIES}


def read_voxels(path: Path) -> NDArray[np.float32]:
    """The voxels of a NIfTI file as float32, axes as stored."""
    return np.asarray(nib.Nifti1Image.from_filename(path).dataobj, dtype=np.float32)


def _write(voxels: NDArray[np.int16] | NDArray[np.uint8], affine: NDArray[np.float64], path: Path) -> None:
    image = nib.nifti1.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units(xyz="mm")  # type: ignore[no-untyped-call]
    nib.loadsave.save(image, path)
