"""Small NIfTI cases on disk."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from tests.client.contract_server import MODALITIES

nibabel: Any = importlib.import_module("nibabel")

AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])


def write_case(folder: Path, *, shape: tuple[int, ...] = (8, 9, 7), seed: int = 0) -> list[str]:
    """One file for each modality of the fake model; the arguments that name them."""
    rng = np.random.default_rng(seed)
    arguments: list[str] = []
    for name in MODALITIES:
        path = folder / f"{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(rng.normal(size=shape).astype(np.float32), AFFINE), path)
        arguments += ["--volume", f"{name}={path}"]
    return arguments


def read_map(path: Path) -> Any:
    """Image of a map that was written."""
    return nibabel.load(path)
