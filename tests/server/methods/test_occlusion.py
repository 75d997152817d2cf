"""Occlusion against its definition and against Captum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import captum.attr
import numpy as np
import numpy.typing as npt
import pytest
import torch
from voxplain.errors import InvalidSpec
from voxplain.v1 import method_pb2
from voxplain_server.methods.occlusion import METHOD, OcclusionPlan
from voxplain_server.methods.resolve import resolve_method

from tests.fakes import Formula, explain, fake_case, fake_model, fake_setting, interaction_formula
from tests.server.methods.smooth_network import SmoothNetwork, network_formula, network_input

Arrays = list[npt.NDArray[np.float64]]


def slow_occlusion(
    volumes: Sequence[npt.NDArray[np.float32]],
    fill: Sequence[npt.NDArray[np.float32]],
    formula: Formula,
    *,
    window: Sequence[int],
    stride: Sequence[int],
) -> Arrays:
    """Zeiler and Fergus in loops: fill a window, note the drop, average the drops over a voxel's windows."""
    base = formula(volumes)
    maps = []
    for modality, volume in enumerate(volumes):
        drops, windows = np.zeros(volume.shape), np.zeros(volume.shape)
        counts = [math.ceil((n - w) / s) + 1 for n, w, s in zip(volume.shape, window, stride, strict=True)]
        for steps in itertools.product(*[range(count) for count in counts]):
            box = tuple(slice(p * s, p * s + w) for p, s, w in zip(steps, stride, window, strict=True))
            occluded = [each.copy() for each in volumes]
            occluded[modality][box] = fill[modality][box]
            drops[box] += base - formula(occluded)
            windows[box] += 1
        maps.append(drops / windows)
    return maps


@pytest.mark.parametrize(
    ("shapes", "window", "stride"),
    [
        (((8, 8, 8), (8, 8, 8)), (3, 3, 3), (2, 2, 2)),
        (((9, 7, 6), (9, 7, 6)), (4, 3, 6), (3, 1, 5)),
        (((10, 9), (10, 9), (10, 9)), (5, 4), (2, 3)),
        (((6, 6, 6), (8, 7, 9)), (3, 3, 3), (3, 2, 1)),
        (((5, 5, 5),), (5, 5, 5), (5, 5, 5)),
    ],
)
def test_it_equals_the_definition(
    shapes: tuple[tuple[int, ...], ...], window: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    case, formula = fake_case(shapes), interaction_formula(shapes)
    run = explain(METHOD, case, formula, method_pb2.Occlusion(window=window, stride=stride))
    assert isinstance(run.plan, OcclusionPlan)
    ours = METHOD.estimate(run.plan, run.scores, run.all_done).maps
    theirs = slow_occlusion(case.volumes, run.plan.fill, formula, window=window, stride=stride)
    assert ours is not None
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.usefixtures("captum_in_float64")
def test_it_equals_captum_in_float64(rank: int) -> None:
    shapes = ((10,) * rank,) * 2
    case = fake_case(shapes)
    network = SmoothNetwork(2, rank=rank)
    network(network_input(case.volumes))
    run = explain(METHOD, case, network_formula(network), method_pb2.Occlusion(window=[4], stride=[3]))
    assert isinstance(run.plan, OcclusionPlan)
    ours = METHOD.estimate(run.plan, run.scores, run.all_done).maps
    with torch.no_grad():
        theirs = (
            captum.attr.Occlusion(network)
            .attribute(
                network_input(case.volumes),
                sliding_window_shapes=(1, *[4] * rank),
                strides=(1, *[3] * rank),
                baselines=network_input(run.plan.fill),
            )[0]
            .numpy()
        )
    assert ours is not None
    assert np.abs(np.stack(ours) - theirs).max() <= 1e-9 * np.abs(theirs).max()
    assert run.plan.evaluations == 2 * 3**rank


def test_the_reference_setting_takes_62500_evaluations() -> None:
    model = fake_model([(128, 128, 128)] * 4)
    shapes = [(128, 128, 128)] * 4
    assert METHOD.count_evaluations(METHOD.defaults(model), shapes) == 62_500


def test_maps_of_62500_windows_are_made_without_a_loop_over_windows() -> None:
    shapes = ((128, 128, 128),)
    case = fake_case(shapes)
    plan = METHOD.plan(fake_setting(METHOD, case, lambda volumes: 0.0))
    assert isinstance(plan, OcclusionPlan) and plan.evaluations == 15_625
    scores = np.random.default_rng(0).standard_normal(plan.evaluations)
    maps = METHOD.estimate(plan, scores, np.ones(plan.evaluations, dtype=np.bool_)).maps
    assert maps is not None
    drops, windows = np.zeros(shapes[0]), np.zeros(shapes[0])
    for index in range(plan.evaluations):
        box = plan.perturbation(index).regions[0].box
        drops[box] -= scores[index]
        windows[box] += 1
    assert np.abs(maps[0] - drops / windows).max() < 1e-14


def test_early_evaluations_lie_sparsely_over_all_modalities() -> None:
    shapes = ((32, 32, 32),) * 2
    case = fake_case(shapes)
    plan = METHOD.plan(fake_setting(METHOD, case, lambda volumes: 0.0, method_pb2.Occlusion(window=[4], stride=[2])))
    assert isinstance(plan, OcclusionPlan)
    early = [plan.perturbation(index).regions[0] for index in range(plan.evaluations // 50)]
    assert {region.modality for region in early} == {0, 1}
    for axis in range(3):
        starts = sorted({region.box[axis].start for region in early})
        assert starts[0] == 0 and starts[-1] >= 24
        assert min(b - a for a, b in itertools.pairwise(starts)) >= 4
    assert sorted(plan.order) == list(range(plan.evaluations))


def test_snapshots_hold_nan_where_no_window_is_done_and_say_how_much_is() -> None:
    shapes = ((9, 8, 7),)
    case, formula = fake_case(shapes), interaction_formula(shapes)
    run = explain(METHOD, case, formula, method_pb2.Occlusion(window=[3], stride=[2]))
    done = np.arange(run.plan.evaluations) < 9
    estimate = METHOD.estimate(run.plan, run.scores, done)
    drops, reached, windows = (np.zeros(shapes[0]) for _ in range(3))
    for index in range(run.plan.evaluations):
        box = run.plan.perturbation(index).regions[0].box
        windows[box] += 1
        if done[index]:
            drops[box] += run.setting.base_score - run.scores[index]
            reached[box] += 1
    assert estimate.maps is not None and estimate.coverage is not None
    assert 0 < (reached == 0).sum() < reached.size
    np.testing.assert_array_equal(np.isnan(estimate.maps[0]), reached == 0)
    known = reached > 0
    np.testing.assert_allclose(estimate.maps[0][known], (drops[known] / reached[known]), rtol=0, atol=1e-12)
    np.testing.assert_allclose(estimate.coverage[0], reached / windows, rtol=1e-12)


def test_windows_over_background_are_saved_under_a_zero_fill() -> None:
    shapes = ((12, 12, 12),)
    fill = method_pb2.Baseline(zero=method_pb2.ZeroBaseline())
    run = explain(METHOD, fake_case(shapes), lambda volumes: 1.0, method_pb2.Occlusion(window=[2], stride=[2], fill=fill))
    assert 0 < run.evaluated < run.plan.evaluations
    assert METHOD.estimate(run.plan, run.scores, run.all_done).saved == run.plan.evaluations - run.evaluated


def test_the_default_fill_is_one_noise_volume_like_the_whole_volume() -> None:
    shapes = ((24, 24, 24),) * 2
    case = fake_case(shapes)
    plan = METHOD.plan(fake_setting(METHOD, case, lambda volumes: 0.0))
    assert isinstance(plan, OcclusionPlan)
    for volume, fill in zip(case.volumes, plan.fill, strict=True):
        assert abs(fill.mean() - volume.mean()) < 0.05
        assert abs(fill.std() - volume.std()) < 0.05
    assert not np.array_equal(plan.fill[0], plan.fill[1])


@pytest.mark.parametrize(
    ("asked", "field", "reason"),
    [
        (method_pb2.Occlusion(window=[33]), "occlusion.window", "WINDOW_TOO_LARGE"),
        (method_pb2.Occlusion(window=[11, 11, 25]), "occlusion.window", "WINDOW_TOO_LARGE"),
        (method_pb2.Occlusion(window=[0]), "occlusion.window", "OUT_OF_RANGE"),
        (method_pb2.Occlusion(window=[2**31]), "occlusion.window", "OUT_OF_RANGE"),
        (method_pb2.Occlusion(window=[5, 5]), "occlusion.window", "WRONG_LENGTH"),
        (method_pb2.Occlusion(stride=[0]), "occlusion.stride", "OUT_OF_RANGE"),
        (method_pb2.Occlusion(stride=[12]), "occlusion.stride", "STRIDE_TOO_LARGE"),
        (method_pb2.Occlusion(stride=[1, 1, 1, 1]), "occlusion.stride", "WRONG_LENGTH"),
        (method_pb2.Occlusion(fill=method_pb2.Baseline()), "occlusion.fill", "BASELINE_MISSING"),
    ],
)
def test_impossible_parameters_are_refused_on_the_spec(asked: method_pb2.Occlusion, field: str, reason: str) -> None:
    _, violations = resolve_method(method_pb2.Method(occlusion=asked), fake_model([(32, 32, 24)] * 2))
    assert [(each.field, each.reason) for each in violations] == [(field, reason)]


def test_too_many_windows_are_refused_on_the_spec() -> None:
    _, violations = resolve_method(
        method_pb2.Method(occlusion=method_pb2.Occlusion(window=[1], stride=[1])), fake_model([(240, 240, 155)] * 4)
    )
    assert [(each.field, each.reason) for each in violations] == [("occlusion", "TOO_MANY_EVALUATIONS")]


@pytest.mark.parametrize(
    ("shapes", "window", "stride"),
    [
        ([(32, 32, 32)] * 2, [11], [5]),
        ([(32, 32, 4)] * 2, [11, 11, 4], [5, 5, 4]),
        ([(64, 8), (6, 64)], [6, 8], [5, 5]),
        ([(None, None, 8)] * 2, [11, 11, 8], [5, 5, 5]),
        ([(20, 20), (30, 9, 30)], [9], [5]),
    ],
)
def test_the_default_window_is_cut_to_the_grid(
    shapes: list[tuple[int | None, ...]], window: list[int], stride: list[int]
) -> None:
    resolved, violations = resolve_method(method_pb2.Method(occlusion=method_pb2.Occlusion()), fake_model(shapes, late=True))
    assert not violations
    assert list(resolved.occlusion.window) == window
    assert list(resolved.occlusion.stride) == stride


def test_a_window_larger_than_a_volume_of_open_shape_is_refused_when_it_is_planned() -> None:
    setting = fake_setting(METHOD, fake_case(((8, 8, 8),)), lambda volumes: 0.0)
    params = method_pb2.Occlusion(window=[9], stride=[1], fill=setting.params.fill)  # type: ignore[attr-defined]
    larger = type(setting)(**{name: getattr(setting, name) for name in setting.__slots__ if name != "params"}, params=params)
    with pytest.raises(InvalidSpec) as refused:
        METHOD.plan(larger)
    assert refused.value.reason == "WINDOW_TOO_LARGE"
