"""A grouping that a client asked for becomes the features of a case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from voxplain.errors import InvalidSpec, InvalidTensor, UnsupportedByModel
from voxplain.v1 import method_pb2

from voxplain_server.features.feature_cache import FeatureCache
from voxplain_server.features.feature_set import FeatureSet, Labels
from voxplain_server.features.grid import grid_boxes, grid_labels
from voxplain_server.features.grouping import separate_features, shared_features
from voxplain_server.features.label_map import label_map_labels
from voxplain_server.features.supervoxels import slic_labels
from voxplain_server.models.case import Case

MAX_FEATURES = 1 << 16
"""Most features of a case; beyond that the bookkeeping would weigh more than the volumes."""


def group_features(grouping: method_pb2.FeatureGrouping, case: Case, cache: FeatureCache) -> FeatureSet:
    """Group the voxels of a case, or recall the grouping.

    Args:
        grouping: resolved, so its kind and all its parameters are set.
        case: the case.
        cache: what was grouped for this case before.

    Raises:
        voxplain.errors.UnsupportedByModel: GROUPING_NEEDS_ONE_GRID.
        voxplain.errors.InvalidSpec: TOO_MANY_FEATURES.
        voxplain.errors.InvalidTensor: LABELS_NOT_SENT, LABELS_PER_MODALITY or NEGATIVE_LABEL.
    """
    return cache.remember(grouping.SerializeToString(deterministic=True), lambda: _grouped(grouping, case, cache))


def count_features(grouping: method_pb2.FeatureGrouping, shapes: Sequence[tuple[int, ...]]) -> int:
    """How many features a resolved grouping will have about, background left out."""
    kind = grouping.WhichOneof("kind")
    groupings = shapes[:1] if grouping.shared else shapes
    if kind == "whole_modality":
        return len(shapes)
    if kind == "grid":
        return sum(int(np.prod(grid_boxes(shape, grouping.grid.edge_voxels), dtype=object)) for shape in groupings)
    if kind == "slic":
        return sum(min(grouping.slic.segments, int(np.prod(shape, dtype=object))) for shape in groupings)
    # How many labels a client's map holds is not known before it is there.
    return len(groupings)


def _grouped(grouping: method_pb2.FeatureGrouping, case: Case, cache: FeatureCache) -> FeatureSet:
    if grouping.shared and not case.one_grid:
        raise UnsupportedByModel(
            "GROUPING_NEEDS_ONE_GRID",
            "the modalities of this case lie on different grids; set `shared` to false",
            field="grouping.shared",
        )
    kind = grouping.WhichOneof("kind")
    if kind == "grid" and count_features(grouping, [volume.shape for volume in case.volumes]) >= MAX_FEATURES:
        raise _too_many("grouping.grid.edge_voxels", "use larger boxes")
    if grouping.shared:
        features = shared_features(_shared_labels(grouping, case, cache), len(case.volumes))
    elif kind == "slic":
        features = separate_features(_supervoxels(grouping.slic, case, range(len(case.volumes)), cache))
    else:
        features = separate_features([_labels(grouping, case, modality) for modality in range(len(case.volumes))])
    if features.count > MAX_FEATURES:
        raise _too_many("grouping", "use fewer labels or segments")
    return features


def _shared_labels(grouping: method_pb2.FeatureGrouping, case: Case, cache: FeatureCache) -> Labels:
    kind = grouping.WhichOneof("kind")
    if kind == "label_map" and case.labels is not None and len(case.labels) > 1:
        raise InvalidTensor(
            "LABELS_PER_MODALITY",
            "a shared grouping needs one label map without modality; send one, or set `shared` to false",
            field="grouping.shared",
        )
    if kind != "slic":
        return _labels(grouping, case, 0)
    modality = case.model.modality_names.index(grouping.grouping_modality)
    return _supervoxels(grouping.slic, case, [modality], cache)[0]


def _supervoxels(slic: method_pb2.SlicGrouping, case: Case, modalities: Iterable[int], cache: FeatureCache) -> list[Labels]:
    """The supervoxels of each of these modalities; one modality does not depend on another, so they are made side by side."""
    cut = partial(slic_labels, segments=slic.segments, compactness=slic.compactness, sigma_voxels=slic.sigma_voxels)
    kind = ("slic", slic.segments, slic.compactness, slic.sigma_voxels)
    return cache.remember_each({(*kind, modality): partial(cut, case.volumes[modality]) for modality in modalities})


def _labels(grouping: method_pb2.FeatureGrouping, case: Case, modality: int) -> Labels:
    volume = case.volumes[modality]
    kind = grouping.WhichOneof("kind")
    if kind == "grid":
        return grid_labels(volume.shape, grouping.grid.edge_voxels)
    if kind == "whole_modality":
        return np.ones(volume.shape, dtype=np.int32)
    if kind == "label_map":
        return label_map_labels(_drawn(case, modality))
    raise InvalidSpec("GROUPING_MISSING", "name the kind of the grouping", field="grouping")


def _drawn(case: Case, modality: int) -> Labels:
    if not case.labels:
        raise InvalidTensor("LABELS_NOT_SENT", "a label map grouping needs a tensor with the role LABELS", field="tensors")
    drawn = case.labels[modality if len(case.labels) > 1 else 0]
    if drawn.shape != case.volumes[modality].shape:
        raise InvalidTensor(
            "LABELS_GRID_DIFFERS",
            "the label map must have the shape of the volume; send one for each modality where shapes differ",
            field="tensors",
        )
    return drawn


def _too_many(field: str, remedy: str) -> InvalidSpec:
    return InvalidSpec("TOO_MANY_FEATURES", f"there may be at most {MAX_FEATURES:,} features; {remedy}", field=field)
