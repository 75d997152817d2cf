"""What is said before a byte of a case is there."""

from __future__ import annotations

import pytest
from voxplain.v1 import explain_pb2, method_pb2
from voxplain_server.models.engine_choice import BoxCost, EngineChoice
from voxplain_server.models.traits import ModelTraits
from voxplain_server.workers.expected_time import WALK_STEP_SECONDS, ExpectedTime, expect_time

SHAPES = ((32, 32, 32),) * 2
VOXELS = 2 * 32**3
CHOICE = EngineChoice(
    "incremental-cpu",
    (),
    "",
    dense_seconds=1.0,
    incremental_seconds=0.02,
    share=0.01,
    boxes=(BoxCost(4, 0.01, 0.02), BoxCost(8, 0.08), BoxCost(16, 0.4, 0.6), BoxCost(32, 1.0)),
)
TRAITS = ModelTraits(
    evaluation_seconds=1.0,
    evaluation_voxels=VOXELS,
    gradient_seconds=2.0,
    slic_seconds_per_voxel=1e-4,
    engine_choice=CHOICE,
)
SLIC = method_pb2.FeatureGrouping(slic=method_pb2.SlicGrouping(segments=50, compactness=0.1, sigma_voxels=2.0), shared=False)


def expected(
    *methods: method_pb2.Method, engine: str = "incremental-cpu", threads: int = 1, evaluations: int = 10
) -> ExpectedTime:
    spec = explain_pb2.ExplainSpec(methods=methods)
    counts = {each.key: evaluations for each in methods}
    return expect_time(spec, TRAITS, evaluations=counts, shapes=SHAPES, engine=engine, threads=threads)


def occlusion(*window: int) -> method_pb2.Method:
    return method_pb2.Method(key="m", occlusion=method_pb2.Occlusion(window=window, stride=[2]))


def ablation(key: str = "m", grouping: method_pb2.FeatureGrouping = SLIC) -> method_pb2.Method:
    return method_pb2.Method(key=key, feature_ablation=method_pb2.FeatureAblation(grouping=grouping))


@pytest.mark.parametrize(("window", "each"), [((4,), 0.02), ((16, 16, 16), 0.6), ((2, 4, 8), 0.02), ((32,), 1.0)])
def test_a_window_takes_what_its_cube_was_measured_to_take(window: tuple[int, ...], each: float) -> None:
    assert expected(occlusion(*window)).methods["m"] == pytest.approx(10 * each, abs=0.01)


def test_between_measured_cubes_the_time_lies_between(window: int = 8) -> None:
    assert 10 * 0.02 < expected(occlusion(window)).methods["m"] < 10 * 0.6


def test_an_engine_of_whole_passes_takes_a_whole_pass_whatever_changes() -> None:
    assert expected(occlusion(4), engine="onnxruntime-cpu").methods["m"] == pytest.approx(10.0, abs=0.01)


def test_a_coalition_is_a_whole_pass_and_a_feature_is_not() -> None:
    lime = method_pb2.Method(key="m", lime=method_pb2.Lime(grouping=SLIC))
    assert expected(lime).methods["m"] == pytest.approx(10.0, abs=0.01)
    assert expected(ablation()).methods["m"] < 5.0


def test_a_step_of_a_walk_takes_longer_than_a_feature_that_is_ablated_and_no_longer_than_a_whole_pass() -> None:
    def walks(edge: int) -> method_pb2.Method:
        grid = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[edge] * 3), shared=False)
        return method_pb2.Method(key="m", shapley_value_sampling=method_pb2.ShapleyValueSampling(grouping=grid))

    assert expected(walks(4)).methods["m"] == pytest.approx(10 * (0.02 + WALK_STEP_SECONDS), abs=0.01)
    assert expected(walks(32)).methods["m"] == pytest.approx(10.0, abs=0.01)


def test_a_gradient_takes_what_was_measured() -> None:
    gradient = method_pb2.Method(key="m", gradient=method_pb2.Gradient())
    assert expected(gradient, evaluations=1).methods["m"] == pytest.approx(2.0, abs=0.01)


def test_supervoxels_are_counted_once_however_many_methods_share_them_and_side_by_side_on_more_threads() -> None:
    without = expected(occlusion(4)).preparing
    one = expected(ablation()).preparing - without
    assert one == pytest.approx(2 * 0.4 * 32**3 * 1e-4)
    assert expected(ablation("a"), ablation("b")).preparing - without == pytest.approx(one)
    assert expected(ablation(), threads=2).preparing - without == pytest.approx(one / 2)


def test_a_case_of_twice_the_voxels_takes_twice_as_long_for_whole_passes_but_not_for_a_window() -> None:
    spec = explain_pb2.ExplainSpec(methods=[occlusion(4)])
    wider = ((64, 32, 32),) * 2
    for engine, each in (("onnxruntime-cpu", 2.0), ("incremental-cpu", 0.02)):
        told = expect_time(spec, TRAITS, evaluations={"m": 10}, shapes=wider, engine=engine, threads=1)
        assert told.methods["m"] == pytest.approx(10 * each, abs=0.01)
