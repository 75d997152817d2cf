"""Real anatomy for the demo: the MNI152 2009a T1 with its tissue maps, out of nilearn's wheel.

The three files are package data of nilearn (BSD-3-Clause) and are read from the installed wheel, never downloaded.
Template: Fonov et al., "Unbiased average age-appropriate atlases for pediatric studies", NeuroImage 54 (2011) 313-327,
doi 10.1016/j.neuroimage.2010.07.033.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from examples.glioma_demo.grid import DEMO_GRID

_FILES = {tissue: f"mni_icbm152_{tissue}_tal_nlin_sym_09a_converted.nii.gz" for tissue in ("t1", "gm", "wm")}
# A 3 mm voxel averages over its whole cube; this is the Gaussian of about the same width, in 1 mm template voxels.
_VOXEL_BLUR = 0.9
_BRAIN_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One head on one grid. All arrays are float32 of the grid's shape, 0 outside the brain.

    Attributes:
        t1: the T1 intensity of the template, 1 at its brightest.
        grey, white, fluid: share of each tissue in a voxel; they add up to 1 in the brain.
        brain: True inside the brain, bool.
    """

    t1: NDArray[np.float32]
    grey: NDArray[np.float32]
    white: NDArray[np.float32]
    fluid: NDArray[np.float32]
    brain: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Template:
    maps: dict[str, NDArray[np.float32]]
    inverse_affine: NDArray[np.float64]


@cache
def _load_template() -> _Template:
    folder = resources.files("nilearn.datasets") / "data"
    maps: dict[str, NDArray[np.float32]] = {}
    affine = np.eye(4)
    for tissue, name in _FILES.items():
        with resources.as_file(folder / name) as path:
            image = nib.Nifti1Image.from_filename(path)
            voxels = np.asarray(image.dataobj, dtype=np.float32) / 255.0
            affine = np.asarray(image.affine, dtype=np.float64)
        if tissue == "t1":
            inside = ndimage.binary_fill_holes(voxels > 0).astype(np.float32)
            maps["brain"] = ndimage.gaussian_filter(inside, _VOXEL_BLUR)
        maps[tissue] = ndimage.gaussian_filter(voxels, _VOXEL_BLUR)
    return _Template(maps=maps, inverse_affine=np.asarray(np.linalg.inv(affine), dtype=np.float64))


def sample_anatomy(points_mm: NDArray[np.float64] | None = None) -> Anatomy:
    """Sample the template linearly at `points_mm`.

    Args:
        points_mm: (3, X, Y, Z) template positions in RAS+ mm, one for each voxel wanted; the demo grid by default.

    Returns:
        The anatomy on a grid of shape (X, Y, Z).
    """
    template = _load_template()
    points = DEMO_GRID.points_mm() if points_mm is None else points_mm
    linear, shift = template.inverse_affine[:3, :3], template.inverse_affine[:3, 3]
    indices = np.einsum("ij,jxyz->ixyz", linear, points) + shift[:, None, None, None]
    brain = _largest_part(_interpolate(template.maps["brain"], indices) > _BRAIN_THRESHOLD)
    t1, grey, white = (_interpolate(template.maps[name], indices[:, brain]) for name in ("t1", "gm", "wm"))
    total = np.maximum(grey + white, 1.0)
    return Anatomy(
        t1=_place(t1, brain),
        grey=_place(grey / total, brain),
        white=_place(white / total, brain),
        fluid=_place(1.0 - (grey + white) / total, brain),
        brain=brain,
    )


def _interpolate(voxels: NDArray[np.float32], indices: NDArray[np.float64]) -> NDArray[np.float32]:
    values = ndimage.map_coordinates(voxels, indices, output=np.float32, order=1, mode="constant", cval=0.0)
    return np.asarray(values, dtype=np.float32)


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Coarse sampling leaves lone voxels where the template's brain is thin."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == int(np.argmax(sizes)))


def _place(values: NDArray[np.float32], brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    volume = np.zeros(brain.shape, dtype=np.float32)
    volume[brain] = values
    return volume
