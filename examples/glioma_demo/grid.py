"""The grid on which every demo volume lies."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

SPACING_MM = 3.0


@dataclass(frozen=True, slots=True)
class Grid:
    """A RAS grid with equal spacing on all axes.

    Attributes:
        shape: voxels along right, anterior and superior.
        spacing_mm: edge of a voxel in mm.
        centre_mm: the patient point (RAS+, mm) in the middle of the grid.
    """

    shape: tuple[int, int, int]
    spacing_mm: float
    centre_mm: tuple[float, float, float]

    @property
    def affine(self) -> NDArray[np.float64]:
        """The (4, 4) matrix that maps voxel indices to RAS+ mm."""
        affine = np.diag([self.spacing_mm] * 3 + [1.0])
        half = (np.array(self.shape) - 1) / 2
        affine[:3, 3] = np.array(self.centre_mm) - half * self.spacing_mm
        return affine

    def points_mm(self) -> NDArray[np.float64]:
        """The centre of every voxel in RAS+ mm, shape (3, X, Y, Z), read-only."""
        return _points_mm(self)


@cache
def _points_mm(grid: Grid) -> NDArray[np.float64]:
    indices = np.indices(grid.shape, dtype=np.float64)
    points = indices * grid.spacing_mm + grid.affine[:3, 3, None, None, None]
    points.flags.writeable = False
    return points


# The MNI152 brain spans -72..72, -107..74 and -72..82 mm; 168 x 192 x 168 mm hold it with room for a 4 % larger head,
# and three different roles for three axes (56, 64, 56) make most mix-ups of axes visible.
DEMO_GRID = Grid(shape=(56, 64, 56), spacing_mm=SPACING_MM, centre_mm=(0.0, -16.5, 5.0))
