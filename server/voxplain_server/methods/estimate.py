"""What the scores mean: maps, and how far they can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from voxplain_server.features.feature_set import FeatureSet

Maps = tuple[npt.NDArray[np.float64], ...]
"""One array (*spatial) for each modality on the model's grid."""


@dataclass(frozen=True, slots=True, eq=False)
class FeatureValues:
    """A map that is constant on features.

    Attributes:
        features: which voxels belong to which.
        values: (features.count,) the attribution of each feature; NaN where nothing is known yet.
        standard_errors: (features.count,), or None.
    """

    features: FeatureSet
    values: npt.NDArray[np.float64]
    standard_errors: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SharedMap:
    """A map that several modalities share (Grad-CAM).

    Attributes:
        modalities: indices in Model.modalities.
        values: (*spatial) on the grid of these modalities.
    """

    modalities: tuple[int, ...]
    values: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What a method gives back. Exactly one of `maps`, `by_feature`, `shared`, `modality_values` is set.

    Attributes:
        maps: attribution of every voxel.
        by_feature: attribution of every feature.
        shared: maps that modalities share, one for each branch.
        modality_values: one number for each modality, (modalities,).
        standard_error_maps: standard error of every voxel, where `maps` has one.
        coverage: share of the evaluations reaching a voxel that are done, for occlusion and feature ablation.
        completeness_gap: f(case) - f(baseline) - sum over features (over voxels for maps of voxels), for methods that promise
            completeness.
        completeness_gap_standard_error: where it holds in expectation only.
        standard_error: root mean square over features (or voxels) divided by the largest absolute attribution.
        baseline_score: the score of the baseline case, where it was needed.
        passes: gradient passes done; 0 for perturbation methods.
        saved: evaluations of the plan that needed no pass.
        signed: whether signs have a meaning.
        layers: ONNX values that Grad-CAM read.
        cautions: (code, plain words) that this run has earned.
    """

    maps: Maps | None = None
    by_feature: FeatureValues | None = None
    shared: tuple[SharedMap, ...] | None = None
    modality_values: npt.NDArray[np.float64] | None = None
    standard_error_maps: Maps | None = None
    coverage: Maps | None = None
    completeness_gap: float | None = None
    completeness_gap_standard_error: float | None = None
    standard_error: float | None = None
    baseline_score: float | None = None
    passes: int = 0
    saved: int = 0
    signed: bool = True
    layers: tuple[str, ...] = ()
    cautions: tuple[tuple[str, str], ...] = field(default=())
