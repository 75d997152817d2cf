"""Features: what is switched together."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxplain.errors import InvalidTensor
from voxplain_server.features.change import changed_features
from voxplain_server.features.feature_cache import FeatureCache
from voxplain_server.features.feature_set import FeatureSet
from voxplain_server.features.grid import grid_boxes, grid_labels
from voxplain_server.features.grouping import separate_features, shared_features
from voxplain_server.features.label_map import label_map_labels
from voxplain_server.features.supervoxels import slic_labels

from tests.fakes import fake_case


@given(st.lists(st.integers(1, 9), min_size=2, max_size=3), st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_a_grid_cuts_boxes_of_one_edge(shape: list[int], edge: int) -> None:
    labels = grid_labels(tuple(shape), [edge])
    boxes = grid_boxes(tuple(shape), [edge])
    for place in np.ndindex(*shape):
        box = np.ravel_multi_index(tuple(p // edge for p in place), boxes)
        assert labels[place] == box + 1


def test_a_grid_takes_an_edge_for_each_axis() -> None:
    labels = grid_labels((4, 6), [4, 3])
    np.testing.assert_array_equal(labels, np.repeat([[1, 1, 1, 2, 2, 2]], 4, axis=0))


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20))
def test_drawn_labels_are_numbered_without_gaps_and_keep_their_places(names: list[int]) -> None:
    drawn = np.array(names, dtype=np.int32).reshape(1, -1)
    labels = label_map_labels(drawn)
    assert set(np.unique(labels)) - {0} == set(range(1, len(set(names) - {0}) + 1))
    np.testing.assert_array_equal(labels == 0, drawn == 0)
    for ours, name in zip(labels[0], names, strict=True):
        assert {other for other, label in zip(names, labels[0], strict=True) if label == ours} == {name}


def test_negative_labels_are_refused() -> None:
    with pytest.raises(InvalidTensor) as refused:
        label_map_labels(np.array([[0, -1]], dtype=np.int32))
    assert refused.value.reason == "NEGATIVE_LABEL"


@pytest.mark.parametrize("shape", [(24, 20), (16, 14, 12), (20, 18, 1)])
@pytest.mark.parametrize("background", [True, False])
def test_supervoxels_cover_the_voxels_that_are_not_zero_and_no_others(shape: tuple[int, ...], background: bool) -> None:
    volume = fake_case((shape,)).volumes[0]
    if not background:
        volume = volume + np.float32(10)
    labels = slic_labels(volume, segments=10, compactness=0.1, sigma_voxels=2.0)
    np.testing.assert_array_equal(labels == 0, volume == 0)
    names = np.unique(labels[labels > 0])
    np.testing.assert_array_equal(names, np.arange(1, names.size + 1))
    assert 3 <= names.size <= 25


def test_about_fifty_supervoxels_come_of_the_default() -> None:
    volume = fake_case(((32, 32, 32),)).volumes[0]
    labels = slic_labels(volume, segments=50, compactness=0.1, sigma_voxels=2.0)
    assert 25 <= labels.max() <= 80


def test_an_island_that_slic_leaves_unlabelled_joins_the_nearest_supervoxel() -> None:
    volume = np.zeros((12, 12, 80), dtype=np.float32)
    volume[2:, 2:, 40:] = np.random.default_rng(0).random((10, 10, 40)) + 1
    volume[0, 0, 0] = 1.0
    labels = slic_labels(volume, segments=8, compactness=0.1, sigma_voxels=1.0)
    np.testing.assert_array_equal(labels == 0, volume == 0)
    assert labels[0, 0, 0] in labels[2:, 2:, 40:60]


@pytest.mark.parametrize("voxels", [0, 1, 2, 9, 10, 11, 30])
def test_small_masks_are_no_trouble(voxels: int) -> None:
    volume = np.zeros(400, dtype=np.float32)
    volume[np.random.default_rng(voxels).choice(400, voxels, replace=False)] = 1.5
    labels = slic_labels(volume.reshape(20, 20), segments=10, compactness=0.1, sigma_voxels=2.0)
    np.testing.assert_array_equal(labels.ravel() == 0, volume == 0)
    assert labels.max() <= max(voxels, 0)


def test_a_flat_volume_can_be_cut() -> None:
    labels = slic_labels(np.full((12, 12, 12), 3.0, dtype=np.float32), segments=8, compactness=0.1, sigma_voxels=0.0)
    assert (labels > 0).all() and labels.max() >= 2


def test_supervoxels_are_the_same_every_time() -> None:
    volume = fake_case(((16, 16, 16),)).volumes[0]
    once, again = (slic_labels(volume, segments=10, compactness=0.1, sigma_voxels=2.0) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def _two_modalities() -> FeatureSet:
    first = np.array([[0, 1, 1], [2, 2, 0]], dtype=np.int32)
    second = np.array([[1, 1], [0, 1]], dtype=np.int32)
    return separate_features([first, second])


def test_modalities_have_features_of_their_own_but_share_the_background() -> None:
    features = _two_modalities()
    assert features.count == 4 and not features.shared
    np.testing.assert_array_equal(features.labels[1], [[3, 3], [0, 3]])
    assert [region.modality for region in features.regions(0)] == [0, 1]
    assert [region.modality for region in features.regions(3)] == [1]


def test_a_shared_feature_switches_its_voxels_in_every_modality() -> None:
    features = shared_features(np.array([[0, 1], [1, 2]], dtype=np.int32), 3)
    assert features.count == 3 and features.shared
    regions = features.regions(1)
    assert [region.modality for region in regions] == [0, 1, 2]
    assert regions[0].indices is regions[2].indices


def test_regions_hold_every_voxel_of_their_feature_in_the_smallest_box() -> None:
    features = separate_features([grid_labels((5, 7, 6), [2, 3, 4]), grid_labels((5, 7, 6), [5])])
    for feature in range(features.count):
        for region in features.regions(feature):
            labels = features.labels[region.modality]
            assert region.indices is not None
            np.testing.assert_array_equal(region.indices, np.flatnonzero(labels.ravel() == feature))
            inside: npt.NDArray[np.bool_] = labels == feature
            assert inside[region.box].sum() == inside.sum()
            for axis, part in enumerate(region.box):
                along = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
                assert (part.start, part.stop) == (along[0], along[-1] + 1)


def test_painting_gives_every_voxel_the_value_of_its_feature() -> None:
    features = _two_modalities()
    painted = features.paint(np.array([0.0, 10.0, 20.0, 30.0]))
    np.testing.assert_array_equal(painted[0], [[0, 10, 10], [20, 20, 0]])
    np.testing.assert_array_equal(painted[1], [[30, 30], [0, 30]])


def test_only_features_with_a_differing_voxel_count_as_changed() -> None:
    features = _two_modalities()
    volumes = [np.zeros((2, 3), dtype=np.float32), np.zeros((2, 2), dtype=np.float32)]
    source = [volume.copy() for volume in volumes]
    assert not changed_features(features, volumes, source).any()
    source[0][1, 1] = 1e-30
    source[1][0, 0] = 2.0
    np.testing.assert_array_equal(changed_features(features, volumes, source), [False, False, True, True])


def test_a_cache_makes_a_grouping_once() -> None:
    cache, made = FeatureCache(), []

    def make() -> FeatureSet:
        made.append(1)
        return _two_modalities()

    first = cache.remember(b"key", make)
    assert cache.remember(b"key", make) is first
    assert cache.remember(b"other", make) is not first
    assert len(made) == 2


def test_a_cache_makes_what_is_missing_side_by_side_and_keeps_the_order() -> None:
    cache, meeting = FeatureCache(threads=2), threading.Barrier(2, timeout=10)
    known = cache.remember("known", _two_modalities)

    def meet() -> FeatureSet:
        # Neither gets past the barrier unless the other is being made at the same time.
        meeting.wait()
        return _two_modalities()

    first, kept, second = cache.remember_each({"first": meet, "known": meet, "second": meet})
    assert kept is known
    assert first is cache.remember("first", meet)
    assert second is cache.remember("second", meet)
