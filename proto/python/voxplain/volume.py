"""Volumes: voxels, and where they lie in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt

Affine = npt.NDArray[np.float64]
"""4x4, maps voxel indices to millimetres, RAS+."""

CORNER_TOLERANCE_MM = 0.01
"""Two grids are one when no corner is further off than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """A voxel grid.

    Attributes:
        shape: voxels along each axis; 2 or 3 axes.
        affine: 4x4 matrix from voxel indices (in the order of `shape`; the third index of a 2D grid is 0) to patient
            coordinates in mm, RAS+. None where it is not known.
    """

    shape: tuple[int, ...]
    affine: Affine | None = None

    @property
    def spacing_mm(self) -> tuple[float, ...] | None:
        """Distance of neighbouring voxels along each axis in mm, or None without an affine."""
        if self.affine is None:
            return None
        return tuple(float(np.linalg.norm(self.affine[:3, axis])) for axis in range(len(self.shape)))

    @property
    def axis_codes(self) -> str | None:
        """The anatomical direction that each axis runs to, of R L A P S I, for example "RAS"; None without an affine.

        Oblique axes get the direction they are closest to, each direction at most once.
        """
        if self.affine is None:
            return None
        directions = self.affine[:3, :3] / np.maximum(np.linalg.norm(self.affine[:3, :3], axis=0), 1e-12)
        codes = [""] * 3
        free_rows = {0, 1, 2}
        for axis in np.argsort(-np.abs(directions).max(axis=0)):
            row = max(free_rows, key=lambda r: abs(directions[r, axis]))
            free_rows.discard(row)
            codes[axis] = ("RAS" if directions[row, axis] > 0 else "LPI")[row]
        return "".join(codes[: len(self.shape)])

    def corners_mm(self) -> npt.NDArray[np.float64] | None:
        """Patient coordinates of the grid's corner voxels, (2**axes, 3) in mm; None without an affine."""
        if self.affine is None:
            return None
        corners: npt.NDArray[np.float64] = (self.affine @ _corner_indices(self.shape))[:3].T
        return corners

    def same_grid(self, other: Geometry) -> bool:
        """Whether both grids have one shape and no corner off by more than 0.01 mm.

        Two unknown affines of one shape count as the same grid; a known and an unknown one do not.
        """
        if self.shape != other.shape:
            return False
        mine, theirs = self.corners_mm(), other.corners_mm()
        if mine is None or theirs is None:
            return mine is None and theirs is None
        return bool(np.abs(mine - theirs).max() <= CORNER_TOLERANCE_MM)


@lru_cache(maxsize=256)
def _corner_indices(shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Homogeneous indices of the corner voxels, (4, 2**axes). Not to be written to."""
    corners = np.array([*product(*((0, size - 1) for size in shape))], dtype=np.float64)
    homogeneous = np.zeros((4, len(corners)))
    homogeneous[: len(shape)] = corners.T
    homogeneous[3] = 1.0
    return homogeneous


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """Voxels on a grid.

    Attributes:
        geometry: the grid; its shape is the array's.
        voxels: array in the order of the grid's axes.
    """

    geometry: Geometry
    voxels: npt.NDArray[np.generic]

    def __post_init__(self) -> None:
        if not isinstance(self.voxels, np.ndarray):
            # Here, because most of those who read this file make no volumes and need no gRPC.
            from voxplain.errors import InvalidTensor

            raise InvalidTensor("NOT_AN_ARRAY", "voxels are a numpy array: numpy.asarray(...) makes one", field="voxels")
        if self.voxels.shape != tuple(self.geometry.shape):
            raise ValueError("a volume's voxels must have the shape of its geometry")
