"""Coalitions that differ by one feature are evaluated from one another, and answer as if they were not."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxplain_server.engines.incremental_walks import Walk, plan_walks, share_out
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.features.feature_set import FeatureSet
from voxplain_server.features.region import Region
from voxplain_server.graph.graph_reader import read_graph
from voxplain_server.models.model import InputSpec

from tests.server.engines.incremental_cases import Setting, noise, setting
from tests.server.graph.comparing import read
from tests.server.graph.conftest import Exported
from tests.server.graph.conftest import exported as exported
from tests.server.graph.conftest import one_thread as one_thread
from tests.server.graph.networks import NETWORKS

BOUND = 1e-10


@pytest.fixture(scope="module", params=["vgg", "unet", "dirty"])
def found(request: pytest.FixtureRequest, exported: Exported) -> Setting:
    network = NETWORKS[request.param]
    graph = read_graph(read(exported(request.param, dynamo=False)))
    shape = network.input_shapes[0]
    spec = InputSpec("input_0", tuple(f"modality {channel}" for channel in range(shape[1])))
    return setting(graph, [spec], [shape[2:]], output_shape=tuple(network.build()(*network.inputs()).shape), zeros=0.3)


def boxes_of_features(found: Setting, edge: int = 4) -> FeatureSet:
    """Cubes of voxels, others for every modality, with ragged borders."""
    labels, count = [], 0
    draws = np.random.default_rng(2)
    for volume in found.case.volumes:
        places = np.meshgrid(*[np.arange(n) for n in volume.shape], indexing="ij")
        jitter = draws.integers(0, 2, volume.shape)
        cubes = [np.minimum(axis + jitter, n - 1) // (n // 2) for axis, n in zip(places, volume.shape, strict=True)]
        label = np.ravel_multi_index(tuple(np.minimum(cube, 1) for cube in cubes), (2,) * volume.ndim) + count
        labels.append(label.astype(np.int32))
        count += 2**volume.ndim
    return FeatureSet(labels=tuple(labels), count=count, shared=False)


def coalitions(found: Setting, features: FeatureSet, absent: list[list[int]]) -> list[Perturbation]:
    source = noise(found.case)
    return [
        Perturbation(regions=tuple(region for each in one for region in features.regions(each)), source=source)
        for one in absent
    ]


def walk(order: np.ndarray) -> list[list[int]]:
    """The absent features of every step, the empty coalition left out."""
    return [sorted(order[step + 1 :].tolist()) for step in range(len(order) - 1)]


def test_shapley_walks_answer_as_whole_passes(found: Setting) -> None:
    features = boxes_of_features(found)
    draws = np.random.default_rng(0)
    orders = [draws.permutation(features.count)[:9] for _ in range(2)]
    absent = [sorted(orders[0].tolist()), *itertools.chain.from_iterable(walk(order) for order in orders)]
    absent += walk(orders[0][::-1])
    assert found.distance(coalitions(found, features, absent)) <= BOUND


def test_walks_take_fewer_operations_than_their_coalitions_alone(found: Setting) -> None:
    features = boxes_of_features(found)
    asked = coalitions(found, features, walk(np.arange(features.count)))
    planned = found.incremental.planned_flops(found.case, asked)
    alone = found.incremental.count_flops(found.case, asked)
    assert planned.sum() < alone.sum()


def test_coalitions_that_have_little_in_common_are_evaluated_apart(found: Setting) -> None:
    features = boxes_of_features(found)
    asked = coalitions(found, features, [[0, 1], [5, 6], [2, 3], [6, 7]])
    np.testing.assert_array_equal(
        found.incremental.planned_flops(found.case, asked), found.incremental.count_flops(found.case, asked)
    )


def test_features_that_overlap_are_never_taken_back_from_one_another(found: Setting) -> None:
    shape = found.case.volumes[0].shape
    one, two, three = (Region(0, tuple(slice(at, at + 6) for _ in shape)) for at in (0, 3, 5))
    source = noise(found.case)
    asked = [Perturbation(regions=each, source=source) for each in ((one, two, three), (two, three), (one, three), (three,))]
    assert found.distance(asked) <= BOUND


def test_equal_walks_give_equal_bytes(found: Setting) -> None:
    asked = coalitions(found, boxes_of_features(found), walk(np.arange(7)))
    assert found.found(asked).tobytes() == found.found(asked).tobytes()


def test_the_case_is_as_before_after_a_walk(found: Setting) -> None:
    features = boxes_of_features(found)
    alone = coalitions(found, features, [[3], [9]])
    before = found.found(alone)
    found.found(coalitions(found, features, walk(np.arange(7))))
    assert found.found(alone).tobytes() == before.tobytes()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_plan_is_the_cheapest_of_all(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    numbers = st.floats(1, 100, allow_nan=False)
    from_case = np.array([data.draw(numbers) for _ in range(count)])
    steps = np.array([np.inf, *(data.draw(st.one_of(numbers, st.just(np.inf))) for _ in range(count - 1))])
    most = data.draw(numbers)
    walks = plan_walks(from_case, steps, most=most)
    walked = {number for each in walks for number in each.order}
    cost = sum(sum(each.work) for each in walks)
    cost += sum(min(from_case[number], most) for number in range(count) if number not in walked)
    assert cost == pytest.approx(_cheapest(from_case, steps, most))


def _cheapest(from_case: np.ndarray, steps: np.ndarray, most: float) -> float:
    """By trying every way to cut the row."""
    count, best = from_case.size, np.inf
    for cuts in itertools.product((False, True), repeat=count - 1):
        edges = [0, *(place + 1 for place, cut in enumerate(cuts) if cut), count]
        cost = 0.0
        for first, behind in itertools.pairwise(edges):
            if behind == first + 1:
                cost += min(from_case[first], most)
            else:
                cost += min(from_case[first], from_case[behind - 1]) + steps[first + 1 : behind].sum()
        best = min(best, cost)
    return float(best)


def test_a_long_walk_is_shared_between_streams() -> None:
    from_case = np.full(40, 10.0)
    shared = share_out([Walk(tuple(range(39, -1, -1)), (10.0, *[3.0] * 39))], from_case, streams=2, full=10.0)
    assert [each.order for each in shared] == [tuple(range(39, 39 - len(shared[0].order), -1)), shared[1].order]
    assert sorted(number for each in shared for number in each.order) == list(range(40))
    assert shared[1].work[0] == 10.0


def test_a_short_walk_is_not_shared() -> None:
    walks = [Walk((2, 1, 0), (10.0, 3.0, 3.0))]
    assert share_out(walks, np.full(3, 10.0), streams=4, full=10.0) == walks


def test_a_change_of_source_ends_a_walk(found: Setting) -> None:
    features = boxes_of_features(found)
    asked = coalitions(found, features, walk(np.arange(6)))
    other = noise(found.case, seed=77)
    asked[2] = replace(asked[2], source=other)
    assert found.distance(asked) <= BOUND
