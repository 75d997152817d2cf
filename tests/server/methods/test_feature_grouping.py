"""Groupings as a client asks for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from voxplain.errors import InvalidSpec, InvalidTensor, UnsupportedByModel
from voxplain.v1 import method_pb2
from voxplain_server.features import supervoxels
from voxplain_server.features.feature_cache import FeatureCache
from voxplain_server.methods.feature_grouping import count_features, group_features

from tests.fakes import fake_case

SHAPES = ((10, 9, 8),) * 3
SLIC = method_pb2.SlicGrouping(segments=5, compactness=0.1, sigma_voxels=1.0)


def test_shared_supervoxels_are_those_of_the_grouping_modality() -> None:
    case = fake_case(SHAPES)
    grouping = method_pb2.FeatureGrouping(slic=SLIC, shared=True, grouping_modality="t2")
    features = group_features(grouping, case, FeatureCache())
    expected = supervoxels.slic_labels(case.volumes[2], segments=5, compactness=0.1, sigma_voxels=1.0)
    for labels in features.labels:
        np.testing.assert_array_equal(labels, expected)


def test_supervoxels_of_one_modality_serve_shared_and_separate_groupings(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counting(volume: npt.NDArray[np.float32], **settings: float) -> npt.NDArray[np.int32]:
        made.append(settings["segments"])
        return np.ones(volume.shape, dtype=np.int32)

    monkeypatch.setattr("voxplain_server.methods.feature_grouping.slic_labels", counting)
    case, cache = fake_case(SHAPES), FeatureCache()
    separate = method_pb2.FeatureGrouping(slic=SLIC, shared=False)
    shared = method_pb2.FeatureGrouping(slic=SLIC, shared=True, grouping_modality="t1c")
    first = group_features(separate, case, cache)
    group_features(shared, case, cache)
    assert group_features(separate, case, cache) is first
    assert len(made) == 3


def test_whole_modalities_are_one_feature_each() -> None:
    grouping = method_pb2.FeatureGrouping(whole_modality=method_pb2.WholeModalityGrouping(), shared=False)
    features = group_features(grouping, fake_case(((4, 5), (6, 3)), late=True), FeatureCache())
    assert features.count == 3
    assert [np.unique(labels).tolist() for labels in features.labels] == [[1], [2]]


@pytest.mark.parametrize("shared", [True, False])
def test_a_clients_label_map_serves_one_or_all_modalities(shared: bool) -> None:
    drawn = np.zeros(SHAPES[0], dtype=np.int32)
    drawn[2:4], drawn[6:] = 40, 7
    case = replace(fake_case(SHAPES), labels=(drawn,))
    grouping = method_pb2.FeatureGrouping(label_map=method_pb2.LabelMapGrouping(), shared=shared)
    features = group_features(grouping, case, FeatureCache())
    assert features.count == (3 if shared else 7)
    np.testing.assert_array_equal(features.labels[0], np.where(drawn == 7, 1, np.where(drawn == 40, 2, 0)))
    np.testing.assert_array_equal(features.labels[2] == 0, drawn == 0)


def test_label_maps_that_do_not_fit_are_refused() -> None:
    case = fake_case(SHAPES)
    drawn = np.ones(SHAPES[0], dtype=np.int32)
    separate = method_pb2.FeatureGrouping(label_map=method_pb2.LabelMapGrouping(), shared=False)
    shared = method_pb2.FeatureGrouping(label_map=method_pb2.LabelMapGrouping(), shared=True)
    for grouping, labels, reason in [
        (separate, None, "LABELS_NOT_SENT"),
        (separate, (drawn[:-1],), "LABELS_GRID_DIFFERS"),
        (shared, (drawn, drawn, drawn), "LABELS_PER_MODALITY"),
        (shared, (-drawn,), "NEGATIVE_LABEL"),
    ]:
        with pytest.raises(InvalidTensor) as refused:
            group_features(grouping, replace(case, labels=labels), FeatureCache())
        assert refused.value.reason == reason


def test_a_shared_grouping_of_modalities_on_different_grids_is_refused() -> None:
    case = fake_case(((8, 8, 8), (8, 8, 6)), late=True)
    grouping = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[4]), shared=True)
    with pytest.raises(UnsupportedByModel) as refused:
        group_features(grouping, case, FeatureCache())
    assert refused.value.reason == "GROUPING_NEEDS_ONE_GRID"


def test_a_grouping_with_a_feature_for_every_voxel_is_refused() -> None:
    case = fake_case(((64, 64, 20),))
    grouping = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[1]), shared=False)
    with pytest.raises(InvalidSpec) as refused:
        group_features(grouping, case, FeatureCache())
    assert refused.value.reason == "TOO_MANY_FEATURES"


@pytest.mark.parametrize("shared", [True, False])
def test_features_of_a_grid_are_counted_before_a_case_is_there(shared: bool) -> None:
    grouping = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[4, 3, 8]), shared=shared)
    features = group_features(grouping, fake_case(SHAPES), FeatureCache())
    assert count_features(grouping, SHAPES) == features.count - 1
