"""Lays a client's volume onto the model's grid, and maps back onto the client's.

A fit is one rule for each axis: which axis of the client's volume it reads, and where each of its voxels lies on that one.
Flips, axis swaps, crops and pads move voxels and are undone exactly; resampling is linear, or nearest for labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from voxplain.errors import InvalidSpec
from voxplain.volume import Affine, Geometry

from voxplain_server.models.axis_map import AxisMap, lay_over
from voxplain_server.models.model import Fit, ModalitySpec

OBLIQUE_DEGREES = 10.0
"""Axes that lean more than this from the patient's are worth a caution."""
MAX_GRID_VOXELS = 1 << 28
"""Most voxels of a model's grid: 1 GiB for each modality."""

_LINES = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}


@dataclass(frozen=True, slots=True, eq=False)
class FitPlan:
    """How one volume meets the model's grid.

    Attributes:
        source: the client's grid.
        target: the model's grid, in the same patient space.
        axes: for each axis of the model's grid the axis of the client's that it reads.
        maps: for each axis of the model's grid where its voxels lie on that one.
        oblique: whether the client's axes lean by more than 10 degrees from those that the orientation names.
        off_spacing: whether the fitted volume has another spacing than the model's, because its shape was met and not it.
    """

    source: Geometry
    target: Geometry
    axes: tuple[int, ...]
    maps: tuple[AxisMap, ...]
    oblique: bool = False
    off_spacing: bool = False

    @property
    def exact(self) -> bool:
        """Whether voxels are only moved, so that the way back loses nothing but what was cropped."""
        return all(axis_map.exact for axis_map in self.maps)

    @property
    def cuts(self) -> bool:
        """Whether the model does not see some of the volume."""
        return any(axis_map.cuts for axis_map in self.maps)

    def apply(
        self, array: npt.NDArray[np.generic], *, nearest: bool = False, dtype: npt.DTypeLike = np.float32
    ) -> npt.NDArray[Any]:
        """Lay an array on the client's grid onto the model's; padding is zero. Returns a new C-contiguous array."""
        return lay_over(array.transpose(self.axes), self.maps, nearest=nearest, dtype=dtype)

    def undo(self, array: npt.NDArray[np.generic], *, nearest: bool = False) -> npt.NDArray[Any]:
        """Lay an array on the model's grid back onto the client's; zero where the model saw nothing.

        Args:
            array: (*target.shape).
            nearest: True for labels and for maps that are constant on features.

        Returns:
            A new C-contiguous array (*source.shape) of the same type.
        """
        back = [axis_map.inverse() for axis_map in self.maps]
        upright = lay_over(array, back, nearest=nearest, dtype=array.dtype)
        return np.ascontiguousarray(upright.transpose(np.argsort(self.axes)))


def plan_fit(source: Geometry, spec: ModalitySpec) -> FitPlan:
    """Decide how a volume meets the model's grid.

    First axes are swapped and flipped to the stated orientation; then axes whose spacing is off are resampled, if that is
    allowed; then the shape is met by resizing where that is allowed, else by cropping or padding evenly at both ends.

    Args:
        source: the client's grid.
        spec: what the model reads.

    Raises:
        voxplain.errors.InvalidSpec: AFFINE_MISSING, ORIENTATION_MISMATCH, SPACING_MISMATCH (field "affine"), SHAPE_MISMATCH
            (field "shape").
    """
    if source.affine is None and (spec.orientation is not None or spec.spacing_mm is not None):
        message = "This model states an orientation or a spacing, so the volume needs an affine. Send its 16 numbers."
        raise InvalidSpec("AFFINE_MISSING", message, field="affine")
    axes, flips = _orient(source, spec)
    spacing = source.spacing_mm
    maps = []
    for axis, (source_axis, flipped) in enumerate(zip(axes, flips, strict=True)):
        size = source.shape[source_axis]
        resampled = _resample(size, axis, spec, None if spacing is None else spacing[source_axis])
        step, start, size = _meet_shape(resampled, axis, spec)
        last = source.shape[source_axis] - 1
        maps.append(AxisMap(-step if flipped else step, last - start if flipped else start, last + 1, size))
    shape = tuple(axis_map.size for axis_map in maps)
    if np.prod(shape, dtype=np.float64) > MAX_GRID_VOXELS:
        message = "On the model's grid this volume would have more voxels than the server handles. Send a smaller one."
        raise InvalidSpec("SHAPE_MISMATCH", message, field="shape")
    target = Geometry(shape, _moved_affine(source, axes, maps))
    return FitPlan(
        source,
        target,
        tuple(axes),
        tuple(maps),
        oblique=_is_oblique(source, spec),
        off_spacing=_is_off_spacing(target, spec),
    )


def describe_fit(fit: Fit) -> str:
    """What is done to a volume of another size or spacing, in plain words; empty where it is refused."""
    words = [
        *(["resampled linearly to the stated spacing"] if fit.resample else []),
        *(["resized linearly to the stated shape"] if fit.resize else []),
        *(["cropped evenly"] if fit.crop else []),
        *(["padded evenly with zeros"] if fit.pad else []),
    ]
    return ", ".join(words)


def _orient(source: Geometry, spec: ModalitySpec) -> tuple[Sequence[int], Sequence[bool]]:
    codes = source.axis_codes
    if spec.orientation is None or codes is None:
        return range(len(source.shape)), [False] * len(source.shape)
    lines = [_LINES[code] for code in codes]
    wanted = [_LINES[code] for code in spec.orientation]
    if sorted(lines) != sorted(wanted):
        message = "The planes of this volume run along other directions than the model reads. Send slices of the stated plane."
        raise InvalidSpec("ORIENTATION_MISMATCH", message, field="affine")
    axes = [lines.index(line) for line in wanted]
    return axes, [codes[axis] != code for axis, code in zip(axes, spec.orientation, strict=True)]


def _resample(size: int, axis: int, spec: ModalitySpec, spacing: float | None) -> tuple[float, float, int]:
    """Step, start and size of an axis after resampling to the stated spacing, both grids centred on one point."""
    if spec.spacing_mm is None or spacing is None or abs(spacing / spec.spacing_mm[axis] - 1.0) <= spec.spacing_tolerance:
        return 1.0, 0.0, size
    if spec.fit.resample:
        step = spec.spacing_mm[axis] / spacing
        resampled = max(1, round(size / step))
        return step, (size - 1) / 2 - (resampled - 1) / 2 * step, resampled
    if spec.fit.resize:
        return 1.0, 0.0, size
    message = "This volume has not the spacing that the model reads, and its bundle allows no resampling. Resample it first."
    raise InvalidSpec("SPACING_MISMATCH", message, field="affine")


def _meet_shape(resampled: tuple[float, float, int], axis: int, spec: ModalitySpec) -> tuple[float, float, int]:
    step, start, size = resampled
    wanted = _wanted_size(size, axis, spec)
    if wanted == size:
        return resampled
    if spec.fit.resize:
        # Outer faces of both grids meet: half a voxel beyond the outermost centres.
        ratio = size / wanted
        return step * ratio, step * (ratio - 1) / 2 + start, wanted
    shift = (size - wanted) // 2 if size > wanted else -((wanted - size) // 2)
    return step, step * shift + start, wanted


def _wanted_size(size: int, axis: int, spec: ModalitySpec) -> int:
    fixed, fit = spec.shape[axis], spec.fit
    multiple = spec.multiples[axis] if spec.multiples else 1
    if fixed is not None:
        wanted = fixed
    elif size % multiple == 0:
        return size
    elif fit.resize:
        wanted = max(1, round(size / multiple)) * multiple
    elif fit.pad or size < multiple:
        wanted = -(-size // multiple) * multiple
    else:
        wanted = size // multiple * multiple
    if wanted != size and not (fit.resize or (fit.crop if wanted < size else fit.pad)):
        stated = f"{fixed} voxels" if fixed is not None else f"a multiple of {multiple} voxels"
        message = (
            f"Along axis {axis} of its grid the model reads {stated}, and its bundle does not allow this volume to be "
            f"{'cropped' if wanted < size else 'padded'}. Send a volume of that size."
        )
        raise InvalidSpec("SHAPE_MISMATCH", message, field="shape")
    return wanted


def _moved_affine(source: Geometry, axes: Sequence[int], maps: Sequence[AxisMap]) -> Affine | None:
    if source.affine is None:
        return None
    move = np.zeros((4, 4))
    move[3, 3] = 1.0
    for axis in range(len(axes), 3):
        move[axis, axis] = 1.0
    for axis, (source_axis, axis_map) in enumerate(zip(axes, maps, strict=True)):
        move[source_axis, axis] = axis_map.step
        move[source_axis, 3] = axis_map.start
    moved: Affine = source.affine @ move
    return moved


def _is_off_spacing(target: Geometry, spec: ModalitySpec) -> bool:
    if spec.spacing_mm is None or target.spacing_mm is None:
        return False
    pairs = zip(target.spacing_mm, spec.spacing_mm, strict=True)
    # A little more than the tolerance, which was already held against the unrounded spacing.
    return any(abs(own / wanted - 1.0) > spec.spacing_tolerance + 1e-6 for own, wanted in pairs)


def _is_oblique(source: Geometry, spec: ModalitySpec) -> bool:
    codes = source.axis_codes
    if source.affine is None or codes is None or spec.orientation is None:
        return False
    columns = source.affine[:3, : len(source.shape)]
    along = [abs(columns[_LINES[code], axis]) / np.linalg.norm(columns[:, axis]) for axis, code in enumerate(codes)]
    return bool(min(along) < np.cos(np.deg2rad(OBLIQUE_DEGREES)))
