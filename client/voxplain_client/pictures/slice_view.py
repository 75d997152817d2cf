"""How one slice of a grid is laid out on paper, told from the affine and never from the order of the array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from voxplain.volume import Geometry

Convention = Literal["radiological", "neurological"]
"""Radiological: the patient's right is on the left of the picture, as if seen from the feet. Neurological: right is right."""

THICK_SLICES = 1.5
"""Slices this much thicker than voxels are wide were acquired as such: they are shown in their own plane."""

_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S", "": ""}
_PLANES = {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal", "R": "sagittal", "L": "sagittal", "": "slice"}
_SIDES = {"R": "right", "L": "left", "A": "anterior", "P": "posterior", "S": "superior", "I": "inferior"}
_ROW_OF = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
_NAME_OF = {"R": "x", "L": "x", "A": "y", "P": "y", "S": "z", "I": "z"}


@dataclass(frozen=True, slots=True)
class SliceView:
    """A plane of a grid, with the axes of the picture.

    Attributes:
        geometry: the grid.
        slice_axis: axis that is cut; None for a 2D grid.
        row_axis, column_axis: axes that run down and to the right in the picture.
        flip_rows, flip_columns: whether they run against the array.
        top, left: the patient's direction at that edge: R, L, A, P, S or I; empty where it is not known.
    """

    geometry: Geometry
    slice_axis: int | None
    row_axis: int
    column_axis: int
    flip_rows: bool
    flip_columns: bool
    top: str
    left: str

    @property
    def bottom(self) -> str:
        """The patient's direction at the lower edge."""
        return _OPPOSITE[self.top]

    @property
    def right(self) -> str:
        """The patient's direction at the right edge."""
        return _OPPOSITE[self.left]

    @property
    def aspect(self) -> float:
        """Height of a voxel divided by its width."""
        spacing = self.geometry.spacing_mm
        return 1.0 if spacing is None else spacing[self.row_axis] / spacing[self.column_axis]

    @property
    def plane(self) -> str:
        """Axial, coronal or sagittal; oblique planes are named after the nearest."""
        codes = _codes(self.geometry)
        if self.slice_axis is not None:
            return _PLANES[codes[self.slice_axis]]
        missing = [plane for plane in ("R", "A", "S") if codes[0] and not {plane, _OPPOSITE[plane]} & set(codes)]
        return _PLANES[missing[0]] if missing else "slice"

    def cut(self, voxels: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """The slice as a picture, (rows, columns), first row at the top.

        Args:
            voxels: of the grid's shape.
            index: along the slice axis; without meaning for a 2D grid.
        """
        plane = voxels if self.slice_axis is None else np.take(voxels, index, axis=self.slice_axis)
        picture = plane if self.row_axis < self.column_axis else plane.T
        picture = picture[::-1] if self.flip_rows else picture
        return picture[:, ::-1] if self.flip_columns else picture

    def voxel_indices(self, index: int) -> npt.NDArray[np.float64]:
        """Indices into the grid of every pixel of the picture, (rows, columns, 3); a 2D grid's third index is 0."""
        axes = np.meshgrid(*[np.arange(edge, dtype=np.float64) for edge in self.geometry.shape], indexing="ij", sparse=True)
        cuts = [self.cut(np.broadcast_to(axis, self.geometry.shape), index) for axis in axes]
        cuts += [np.zeros_like(cuts[0])] * (3 - len(cuts))
        return np.stack(cuts, axis=-1)

    def position(self, index: int) -> tuple[str, ...]:
        """Where the slice lies, for people: ("axial, z = +12 mm (superior)", "slice 34 (0 to 63)"); as `--slice` counts."""
        shape, affine = self.geometry.shape, self.geometry.affine
        if self.slice_axis is None:
            return (self.plane,)
        place = f"slice {index} (0 to {shape[self.slice_axis] - 1})"
        if affine is None:
            return ("position not known", place)
        code = _codes(self.geometry)[self.slice_axis]
        centre = np.array([(edge - 1) / 2 for edge in shape] + [1.0])
        centre[self.slice_axis] = index
        mm = float((affine @ centre)[_ROW_OF[code]])
        positive = "RAS"[_ROW_OF[code]]
        side = _SIDES[positive if mm >= 0 else _OPPOSITE[positive]]
        return (f"{self.plane}, {_NAME_OF[code]} = {mm:+.0f} mm ({side})", place)

    def index_at(self, mm: float) -> int:
        """The slice nearest to a position in mm along the plane's coordinate (x, y or z, RAS+)."""
        if self.slice_axis is None or self.geometry.affine is None:
            return 0
        start, step = self._start_and_step(self.slice_axis, self.geometry.affine)
        return int(np.clip(round((mm - start) / step), 0, self.geometry.shape[self.slice_axis] - 1))

    def reach_mm(self) -> tuple[float, float]:
        """Outer borders of the outermost slices along that coordinate; no borders where they are not known."""
        if self.slice_axis is None or self.geometry.affine is None:
            return -np.inf, np.inf
        start, step = self._start_and_step(self.slice_axis, self.geometry.affine)
        ends = start - step / 2, start + (self.geometry.shape[self.slice_axis] - 0.5) * step
        return min(ends), max(ends)

    def _start_and_step(self, slice_axis: int, affine: npt.NDArray[np.float64]) -> tuple[float, float]:
        row = _ROW_OF[_codes(self.geometry)[slice_axis]]
        centre = np.array([(edge - 1) / 2 for edge in self.geometry.shape] + [1.0])
        centre[slice_axis] = 0
        return float((affine @ centre)[row]), float(affine[row, slice_axis])


def view_slices(geometry: Geometry, *, convention: Convention = "radiological") -> SliceView:
    """Choose the plane and its layout: axial, or the acquired plane where slices are clearly thicker than voxels are wide.

    Anterior or superior is at the top. Left and right follow the convention; in a sagittal slice anterior is on the left.
    """
    codes = _codes(geometry)
    slice_axis = _slice_axis(geometry)
    axes = [axis for axis in range(len(geometry.shape)) if axis != slice_axis]
    if not codes[0]:
        return SliceView(geometry, slice_axis, axes[0], axes[1], False, False, "", "")
    # Up is superior where the plane holds it, else anterior.
    up = next(pair for pair in ("SI", "AP") if any(codes[axis] in pair for axis in axes))
    row_axis = next(axis for axis in axes if codes[axis] in up)
    column_axis = next(axis for axis in axes if axis != row_axis)
    left = "A" if codes[column_axis] in "AP" else "R" if convention == "radiological" else "L"
    return SliceView(
        geometry=geometry,
        slice_axis=slice_axis,
        row_axis=row_axis,
        column_axis=column_axis,
        flip_rows=codes[row_axis] == up[0],
        flip_columns=codes[column_axis] == left,
        top=up[0],
        left=left,
    )


def _codes(geometry: Geometry) -> tuple[str, ...]:
    return tuple(geometry.axis_codes or [""] * len(geometry.shape))


def _slice_axis(geometry: Geometry) -> int | None:
    if len(geometry.shape) == 2:
        return None
    spacing, codes = geometry.spacing_mm, _codes(geometry)
    if spacing is not None:
        thickest = int(np.argmax(spacing))
        if spacing[thickest] > THICK_SLICES * sorted(spacing)[1]:
            return thickest
    axial = [axis for axis, code in enumerate(codes) if code in ("S", "I")]
    return axial[0] if axial else 2
