"""Round and irregular tumours of the same volume, told apart by nothing but their outline."""

from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Shape: TypeAlias = Literal["round", "irregular"]
# In the order of the network's outputs.
SHAPES: tuple[Shape, Shape] = ("round", "irregular")

_SPHERE_POINTS = 2000
_SPIKES = (7, 11)
_SPIKE_HEIGHT = (0.8, 1.3)
# Concentration of a spike on the sphere: at 14 it falls to a half 18 degrees from its axis.
_SPIKE_SHARPNESS = 14.0
_STRETCH = 0.10


@dataclass(frozen=True, slots=True)
class Outline:
    """A star-shaped outline: a stretched sphere, times 1 plus smooth spikes.

    The radius in direction u is `scale |u|_A (1 + sum_k h_k exp(s (u . d_k - 1)))`, with `scale` such that the enclosed
    volume is that of the ball of `radius_mm`. Both shapes thus have the same volume, and no feature of size or
    intensity tells them apart.

    Attributes:
        radius_mm: radius of the ball of equal volume, mm.
        stretch: (3,) factors along the axes.
        directions: (K, 3) unit vectors of the spikes; K = 0 for a round outline.
        heights: (K,) heights of the spikes relative to the sphere.
    """

    radius_mm: float
    stretch: NDArray[np.float64]
    directions: NDArray[np.float64]
    heights: NDArray[np.float64]

    def _relative_radius(self, units: NDArray[np.float64]) -> NDArray[np.float64]:
        spikes = np.exp(_SPIKE_SHARPNESS * (units @ self.directions.T - 1.0)) @ self.heights
        stretched = 1.0 / np.linalg.norm(units / self.stretch, axis=-1)
        return np.asarray(stretched * (1.0 + spikes))

    def radius(self, units: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outline's distance in mm along unit vectors `units` of shape (N, 3)."""
        volume_ratio = np.mean(self._relative_radius(_sphere_points()) ** 3)
        return np.asarray(self.radius_mm * self._relative_radius(units) / np.cbrt(volume_ratio))

    def occupancy(
        self, points_mm: NDArray[np.float64], *, centre_mm: NDArray[np.float64], spacing_mm: float, scale: float = 1.0
    ) -> NDArray[np.float32]:
        """How much of each voxel lies inside, 0 to 1, with an edge one voxel wide.

        Args:
            points_mm: (3, X, Y, Z) voxel centres, mm.
            centre_mm: (3,) centre of the tumour, mm.
            spacing_mm: edge of a voxel, mm.
            scale: shrinks (below 1) or grows the outline about its centre.

        Returns:
            (X, Y, Z) float32.
        """
        offset = points_mm - centre_mm[:, None, None, None]
        distance = np.linalg.norm(offset, axis=0)
        inside = np.zeros(distance.shape, dtype=np.float32)
        reach = scale * float(np.max(self.radius(_sphere_points()))) + spacing_mm
        near = distance < reach
        units = offset[:, near].T / np.maximum(distance[near], 1e-9)[:, None]
        inside[near] = np.clip((scale * self.radius(units) - distance[near]) / spacing_mm + 0.5, 0.0, 1.0)
        return inside


def other_shape(shape: Shape) -> Shape:
    """The shape that `shape` is not."""
    return "irregular" if shape == "round" else "round"


def draw_outline(shape: Shape, *, radius_mm: float, generator: np.random.Generator) -> Outline:
    """Draw a random outline of the given shape whose volume is that of the ball of `radius_mm`."""
    stretch = np.exp(generator.uniform(-_STRETCH, _STRETCH, 3))
    if shape == "round":
        return Outline(radius_mm, stretch, np.zeros((0, 3)), np.zeros(0))
    count = int(generator.integers(_SPIKES[0], _SPIKES[1] + 1))
    directions = _spread_directions(count, generator)
    return Outline(radius_mm, stretch, directions, generator.uniform(*_SPIKE_HEIGHT, count))


@cache
def _sphere_points() -> NDArray[np.float64]:
    """A Fibonacci lattice: points spread evenly over the unit sphere, shape (N, 3)."""
    index = np.arange(_SPHERE_POINTS) + 0.5
    polar = np.arccos(1.0 - 2.0 * index / _SPHERE_POINTS)
    azimuth = np.pi * (1.0 + np.sqrt(5.0)) * index
    return np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=-1)


def _spread_directions(count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Random unit vectors that keep clear of each other: spikes that merge would make a round bulge."""
    chosen: list[NDArray[np.float64]] = []
    clearance = 0.75
    while len(chosen) < count:
        candidate = generator.normal(size=3)
        candidate /= np.linalg.norm(candidate)
        if all(float(candidate @ other) < clearance for other in chosen):
            chosen.append(candidate)
    return np.array(chosen)
