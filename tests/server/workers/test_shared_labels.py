"""Supervoxels are made by one worker of a call and read by the others."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from voxplain.v1 import method_pb2
from voxplain_server.features import supervoxels
from voxplain_server.features.feature_cache import FeatureCache
from voxplain_server.methods import feature_grouping
from voxplain_server.methods.feature_grouping import group_features
from voxplain_server.workers.memory import create_memory
from voxplain_server.workers.shared_labels import SharedLabels

from tests.fakes import fake_case

SLIC = method_pb2.FeatureGrouping(slic=method_pb2.SlicGrouping(segments=4, compactness=0.1, sigma_voxels=0.5), shared=False)


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = create_memory(0)
    yield descriptor
    os.close(descriptor)


def test_a_helper_reads_what_the_lead_made(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = fake_case(((8, 8, 8), (8, 8, 8)))
    lead, helper = FeatureCache(), FeatureCache()
    made = group_features(SLIC, case, lead)
    assert len(lead.labels) == 2
    SharedLabels(memory).share(lead.labels)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(supervoxels, "slic_labels", never)
    monkeypatch.setattr(feature_grouping, "slic_labels", never)
    shared = SharedLabels(memory)
    helper.take(shared.read())
    shared.close()
    read = group_features(SLIC, case, helper)
    assert read.count == made.count
    assert all((ours == theirs).all() for ours, theirs in zip(read.labels, made.labels, strict=True))


def test_what_was_not_finished_is_not_there(memory: int) -> None:
    shared = SharedLabels(memory)
    assert shared.read() == {}
    os.ftruncate(memory, 1 << 20)
    assert shared.read() == {}
    shared.share({("slic", 50, 0.1, 2.0, 0): np.arange(6, dtype=np.int32).reshape(2, 3)})
    ((key, labels),) = shared.read().items()
    assert key == ("slic", 50, 0.1, 2.0, 0)
    assert labels.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="read-only"):
        labels[0, 0] = 1
    shared.share({("other",): np.zeros(1, np.int32)})
    assert list(shared.read()) == [key]


def test_without_a_memory_file_nothing_is_shared() -> None:
    shared = SharedLabels(None)
    shared.share({("a",): np.zeros(1, np.int32)})
    assert shared.read() == {}
    shared.close()
