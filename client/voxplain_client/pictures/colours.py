"""Colours of attribution values, safe for all common kinds of colour blindness. Zero is transparent."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# Orange and blue differ in hue and not in lightness for red-green blindness, and read on black as on white matter.
AGAINST = ((0.10, 0.30, 0.85), (0.45, 0.80, 1.00))
FOR = ((0.90, 0.38, 0.00), (1.00, 0.78, 0.25))
UNSIGNED = ((0.10, 0.50, 0.45), (0.98, 0.95, 0.35))
"""Each from the colour of weak values to that of strong ones."""

HATCH_STEP = 4
HATCH_GREY = 0.6
FULL_ALPHA = 0.95
BACKDROP = 0.7
"""How bright the image under a map is: white tissue at full brightness would wash the colours out."""


def paint(values: npt.NDArray[Any], scale: float, *, signed: bool) -> npt.NDArray[np.float64]:
    """Colours and opacity of values.

    Args:
        values: of any shape; NaN (not evaluated) is transparent.
        scale: the value that gets the strongest colour, greater than 0; beyond it the colour stays.
        signed: orange for positive and blue for negative values; else one scale for absolute values.

    Returns:
        RGBA from 0 to 1, (*values.shape, 4); opacity grows with the absolute value.
    """
    relative = np.clip(np.nan_to_num(np.asarray(values, dtype=np.float64)) / scale, -1.0, 1.0)
    strength = np.abs(relative)[..., None]
    if signed:
        weak = np.where(relative[..., None] >= 0, np.array(FOR[0]), np.array(AGAINST[0]))
        strong = np.where(relative[..., None] >= 0, np.array(FOR[1]), np.array(AGAINST[1]))
    else:
        weak, strong = np.array(UNSIGNED[0]), np.array(UNSIGNED[1])
    colour = weak + (strong - weak) * strength
    return np.concatenate([colour, FULL_ALPHA * strength], axis=-1)


def blend(grey: npt.NDArray[np.float64], overlay: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Lay RGBA over grey values from 0 to 1; (*shape) and (*shape, 4) give RGB (*shape, 3)."""
    alpha = overlay[..., 3:]
    blended: npt.NDArray[np.float64] = grey[..., None] * (1.0 - alpha) + overlay[..., :3] * alpha
    return blended


def hatch(picture: npt.NDArray[np.float64], where: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Draw diagonal lines over some pixels, so that they do not look like pixels of no effect.

    Args:
        picture: RGB from 0 to 1, (rows, columns, 3).
        where: (rows, columns).

    Returns:
        The picture with every pixel cut into HATCH_STEP x HATCH_STEP.
    """
    fine = picture.repeat(HATCH_STEP, axis=0).repeat(HATCH_STEP, axis=1)
    down, across = np.ogrid[: fine.shape[0], : fine.shape[1]]
    # Some twenty lines across, at least two pixels apart: lines in every pixel would be a grey wash.
    period = HATCH_STEP * max(2, max(picture.shape[:2]) // 20)
    line = (down + across) % period < max(1, period // 8)
    fine[line & where.repeat(HATCH_STEP, axis=0).repeat(HATCH_STEP, axis=1)] = HATCH_GREY
    return fine


def window(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Grey values from 0 to 1: the 1st to the 99.5th percentile of the non-zero voxels, zero black."""
    finite = np.nan_to_num(np.asarray(image, dtype=np.float64))
    inside = finite[finite != 0]
    if inside.size == 0:
        return np.zeros_like(finite)
    low, high = np.percentile(inside, [1.0, 99.5])
    low = min(low, 0.0) if low >= 0 else low
    grey: npt.NDArray[np.float64] = np.clip((finite - low) / max(high - low, 1e-12), 0.0, 1.0)
    return np.where(finite == 0, 0.0, grey) if low < 0 else grey
