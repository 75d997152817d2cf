"""Labels of single modalities become one feature set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxplain_server.features.feature_set import FeatureSet, Labels


def separate_features(labels: Sequence[Labels]) -> FeatureSet:
    """Give each modality features of its own; background, label 0, is one feature of all.

    Args:
        labels: for each modality (*spatial) int32, 0 .. n without gaps.
    """
    numbered = []
    taken = 0
    for volume in labels:
        numbered.append(_read_only(np.where(volume > 0, volume + taken, 0).astype(np.int32)))
        taken += int(volume.max(initial=0))
    return FeatureSet(labels=tuple(numbered), count=taken + 1, shared=False)


def shared_features(labels: Labels, modalities: int) -> FeatureSet:
    """Let one grouping serve all modalities, which must lie on one grid.

    Args:
        labels: (*spatial) int32, 0 .. n without gaps.
        modalities: how many there are.
    """
    labels = _read_only(labels)
    return FeatureSet(labels=(labels,) * modalities, count=int(labels.max(initial=0)) + 1, shared=True)


def _read_only(labels: Labels) -> Labels:
    view = np.ascontiguousarray(labels, dtype=np.int32).view()
    view.flags.writeable = False
    return view
