"""Which features a baseline changes at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from voxplain_server.features.feature_set import FeatureSet

Voxels = npt.NDArray[np.float32]


def changed_features(features: FeatureSet, volumes: Sequence[Voxels], source: Sequence[Voxels]) -> npt.NDArray[np.bool_]:
    """Tell which features have a voxel that differs between a case and what would replace it.

    Returns:
        (features.count,) bool. A feature without voxels changes nothing.
    """
    changed = np.zeros(features.count, dtype=np.bool_)
    for labels, volume, other in zip(features.labels, volumes, source, strict=True):
        changed[np.unique(labels[volume != other])] = True
    return changed
