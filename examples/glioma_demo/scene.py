"""What one case holds before a scanner has looked: a deformed head and a place for the tumour."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from examples.glioma_demo.anatomy import Anatomy, sample_anatomy
from examples.glioma_demo.grid import DEMO_GRID
from examples.glioma_demo.randomness import open_stream

_TURN_DEGREES = 6.0
_SCALE = 0.04
_SHIFT_MM = 3.0
_WARP_MM = 2.5
_WARP_NODES = 5
_RADIUS_MM = (14.5, 19.0)
# FLAIR shows the oedema around the enhancing tumour, which is larger.
OEDEMA_RATIO = 1.2


@dataclass(frozen=True, slots=True)
class Scene:
    """One head with a place for a tumour.

    Attributes:
        seed: what all of the case's random streams start from.
        anatomy: the deformed head on the demo grid.
        centre_mm: (3,) the tumour's centre, RAS+ mm.
        radius_mm: radius of the ball that has the enhancing tumour's volume, mm.
    """

    seed: int
    anatomy: Anatomy
    centre_mm: NDArray[np.float64]
    radius_mm: float

    @property
    def centre_voxel(self) -> NDArray[np.float64]:
        """(3,) the tumour's centre in voxels of the demo grid."""
        return (self.centre_mm - DEMO_GRID.affine[:3, 3]) / DEMO_GRID.spacing_mm


def draw_scene(seed: int) -> Scene:
    """Draw the head and the tumour's place for `seed`."""
    anatomy = sample_anatomy(_deformed_points(seed))
    place = open_stream(seed, "place")
    radius_mm = float(place.uniform(*_RADIUS_MM))
    depth_mm = ndimage.distance_transform_edt(anatomy.brain) * DEMO_GRID.spacing_mm
    tissue = anatomy.grey + anatomy.white > 0.5
    # The outline must show: a tumour cut off by the skull has the skull's shape.
    candidates = np.argwhere(tissue & (depth_mm > OEDEMA_RATIO * radius_mm))
    index = candidates[place.integers(len(candidates))] + place.uniform(-0.5, 0.5, 3)
    centre_mm = index * DEMO_GRID.spacing_mm + DEMO_GRID.affine[:3, 3]
    return Scene(seed=seed, anatomy=anatomy, centre_mm=centre_mm, radius_mm=radius_mm)


def _deformed_points(seed: int) -> NDArray[np.float64]:
    """Template positions of the grid's voxels after a small affine and a smooth warp, (3, X, Y, Z) in mm.

    The template is left-right symmetric, so a mirrored head is already among the deformed ones.
    """
    draw = open_stream(seed, "anatomy")
    points = DEMO_GRID.points_mm()
    centre = np.array(DEMO_GRID.centre_mm)[:, None, None, None]
    linear = _rotation(np.deg2rad(draw.uniform(-_TURN_DEGREES, _TURN_DEGREES, 3)))
    linear = linear @ np.diag(1.0 / (1.0 + draw.uniform(-_SCALE, _SCALE, 3)))
    shift = draw.uniform(-_SHIFT_MM, _SHIFT_MM, 3)[:, None, None, None]
    moved = np.einsum("ij,jxyz->ixyz", linear, points - centre) + centre + shift
    nodes = draw.normal(0.0, _WARP_MM, (3, _WARP_NODES, _WARP_NODES, _WARP_NODES))
    return np.asarray(moved + smooth_field(nodes), dtype=np.float64)


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turns about the three axes, one after another; `angles` in radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[[first, first, second, second], [first, second, first, second]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        matrix = matrix @ turn
    return matrix


def smooth_field(nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spread coarse node values of shape (C, n, n, n) smoothly over the demo grid: (C, X, Y, Z)."""
    field = nodes
    for axis, length in enumerate(DEMO_GRID.shape, start=1):
        weights = _cubic_weights(nodes.shape[axis], length)
        field = np.moveaxis(np.tensordot(weights, field, axes=(1, axis)), 0, axis)
    return field


@cache
def _cubic_weights(nodes: int, length: int) -> NDArray[np.float64]:
    """Cubic spline interpolation from `nodes` values to `length` positions as a (length, nodes) matrix."""
    positions = np.linspace(0, nodes - 1, length)
    columns = [
        ndimage.map_coordinates(row, positions[None], order=3, mode="nearest") for row in np.eye(nodes, dtype=np.float64)
    ]
    return np.stack(columns, axis=1)
