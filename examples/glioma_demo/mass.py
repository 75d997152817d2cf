"""How much of an attribution map's mass lies in the tumour."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.glioma_demo.synthesis import MODALITIES, Modality

DECIDING: Modality = "t1c"
SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Shares:
    """Where a map's mass lies, as shares of the whole mass; all NaN when there is none.

    Attributes:
        deciding: in the tumour as T1c shows it, on T1c.
        other: in the tumour on the other modalities.
        outside: everywhere else.
    """

    deciding: float
    other: float
    outside: float


def share_mass(weights: Mapping[str, NDArray[np.floating]], tumours: Mapping[Modality, NDArray[np.bool_]]) -> Shares:
    """Share the mass of one map out over the tumour and the rest, summed in float64.

    Args:
        weights: non-negative volumes (X, Y, Z): one per modality, or a single one named `shared`, which says nothing
            about modalities: its mass counts as T1c's within T1c's tumour, as the others' in the rest of their tumours.
        tumours: masks of the same shape, one per modality.

    Raises:
        ValueError: a weight is negative or not finite, a shape differs, or a name is no modality.
    """
    masks: dict[str, NDArray[np.bool_]] = dict(tumours.items())
    masks[SHARED] = np.logical_or.reduce([tumours[modality] for modality in MODALITIES]) & ~tumours[DECIDING]
    deciding = other = total = 0.0
    for name, weight in weights.items():
        volume = np.asarray(weight, dtype=np.float64)
        if name not in masks:
            raise ValueError("a map belongs to no modality of the case: expected t1, t1c, t2, flair or shared")
        if volume.shape != tumours[DECIDING].shape:
            raise ValueError("a map and the tumour masks differ in shape: use the case that was explained, grid INPUT")
        if not np.isfinite(volume).all() or (volume < 0).any():
            raise ValueError("weights must be finite and not negative: take the positive part or the absolute value")
        total += float(volume.sum())
        if name in (DECIDING, SHARED):
            deciding += float(volume[tumours[DECIDING]].sum())
        if name != DECIDING:
            other += float(volume[masks[name]].sum())
    if total == 0.0:
        return Shares(deciding=float("nan"), other=float("nan"), outside=float("nan"))
    return Shares(deciding=deciding / total, other=other / total, outside=(total - deciding - other) / total)
