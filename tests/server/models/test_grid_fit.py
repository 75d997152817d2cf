"""A client's grid and the model's: what is moved comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxplain.errors import InvalidSpec
from voxplain.volume import Geometry
from voxplain_server.models.axis_map import AxisMap, lay_over
from voxplain_server.models.grid_fit import MAX_GRID_VOXELS, describe_fit, plan_fit
from voxplain_server.models.model import Fit

from tests.server.models.editing import modality

AXIS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


def affine_of(codes: str, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> npt.NDArray[np.float64]:
    affine = np.zeros((4, 4))
    affine[3, 3] = 1.0
    for axis, code in enumerate(codes):
        row, sign = AXIS[code]
        affine[row, axis] = sign * spacing[axis]
    affine[:3, 3] = (7.0, -11.0, 3.0)
    return affine


def _refusal(geometry: Geometry, **stated: Any) -> tuple[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        plan_fit(geometry, modality(**stated))
    return caught.value.reason, caught.value.field


orientations = st.permutations([("R", "L"), ("A", "P"), ("S", "I")]).flatmap(
    lambda pairs: st.tuples(*[st.sampled_from(pair) for pair in pairs]).map("".join)
)
shapes = st.tuples(*[st.integers(1, 6)] * 3)


@given(orientations, orientations, shapes, shapes, st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_what_is_flipped_swapped_cropped_and_padded_comes_back_exactly(
    sent: str, wanted: str, size: tuple[int, ...], model_size: tuple[int, ...], seed: int
) -> None:
    volume = np.random.default_rng(seed).uniform(1.0, 2.0, size).astype(np.float32)
    geometry = Geometry(size, affine_of(sent))
    plan = plan_fit(geometry, modality(shape=model_size, orientation=wanted, fit=Fit(crop=True, pad=True)))
    fitted = plan.apply(volume)
    back = plan.undo(fitted)
    assert plan.exact
    assert fitted.shape == model_size
    kept = back != 0
    assert np.array_equal(back[kept], volume[kept])
    sizes_in_model_order = [size[axis] for axis in plan.axes]
    assert kept.sum() == np.prod(np.minimum(sizes_in_model_order, model_size)) == np.count_nonzero(fitted)
    assert plan.target.axis_codes == wanted or 1 in model_size


@given(orientations, orientations, shapes, shapes, st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_every_voxel_keeps_its_place_in_the_patient(
    sent: str, wanted: str, size: tuple[int, ...], model_size: tuple[int, ...], seed: int
) -> None:
    """The slow way round: each model voxel's millimetres, looked up on the client's grid."""
    volume = np.random.default_rng(seed).uniform(1.0, 2.0, size).astype(np.float32)
    affine = affine_of(sent, (1.0, 2.0, 3.0))
    plan = plan_fit(Geometry(size, affine), modality(shape=model_size, orientation=wanted, fit=Fit(crop=True, pad=True)))
    fitted, target = plan.apply(volume), plan.target.affine
    assert target is not None
    for place in np.ndindex(*model_size):
        there = np.linalg.solve(affine, target @ [*place, 1.0])[:3].round(6)
        inside = all(0 <= part <= last - 1 for part, last in zip(there, size, strict=True))
        expected = volume[tuple(there.astype(int))] if inside else 0.0
        assert fitted[place] == expected


def test_a_marker_on_the_left_ends_on_the_left() -> None:
    volume = np.zeros((6, 4, 4), dtype=np.float32)
    volume[0, 1, 1] = 1.0  # Index 0 of an axis that runs to the left lies on the right.
    plan = plan_fit(Geometry((6, 4, 4), affine_of("LAS")), modality(orientation="RAS"))
    fitted = plan.apply(volume)
    assert tuple(np.argwhere(fitted)[0]) == (5, 1, 1)
    map_on_the_model_grid = np.zeros_like(fitted)
    map_on_the_model_grid[5, 1, 1] = 3.0
    assert plan.undo(map_on_the_model_grid)[0, 1, 1] == 3.0


def test_without_a_stated_orientation_nothing_is_moved() -> None:
    volume = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    plan = plan_fit(Geometry((2, 3, 4), affine_of("LPS")), modality())
    assert np.array_equal(plan.apply(volume), volume)
    assert np.array_equal(plan.undo(volume), volume)


def test_a_fitted_volume_is_a_copy_of_its_own() -> None:
    volume = np.ones((2, 3, 4), dtype=np.int16)
    fitted = plan_fit(Geometry((2, 3, 4)), modality()).apply(volume)
    assert fitted.dtype == np.float32
    assert fitted.flags.c_contiguous
    assert not np.shares_memory(fitted, volume)


def test_a_plane_is_turned_in_its_plane() -> None:
    plane = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    plan = plan_fit(Geometry((2, 3), affine_of("PRS")), modality(shape=(None, None), orientation="RA"))
    assert np.array_equal(plan.apply(plane), plane.T[:, ::-1])
    assert np.array_equal(plan.undo(plan.apply(plane)), plane)


def test_a_plane_across_the_stated_one_is_refused() -> None:
    stated = {"shape": (None, None), "orientation": "RA"}
    assert _refusal(Geometry((2, 3), affine_of("RSA")), **stated) == ("ORIENTATION_MISMATCH", "affine")


@pytest.mark.parametrize("stated", [{"orientation": "RAS"}, {"spacing_mm": (1.0, 1.0, 1.0)}])
def test_a_stated_grid_needs_an_affine(stated: dict[str, Any]) -> None:
    assert _refusal(Geometry((4, 4, 4)), **stated) == ("AFFINE_MISSING", "affine")


def test_another_spacing_is_refused_unless_resampling_is_allowed() -> None:
    geometry = Geometry((8, 8, 8), affine_of("RAS", (1.0, 1.0, 2.0)))
    assert _refusal(geometry, spacing_mm=(1.0, 1.0, 1.0)) == ("SPACING_MISMATCH", "affine")
    assert plan_fit(geometry, modality(spacing_mm=(1.0, 1.0, 1.99))).exact
    plan = plan_fit(geometry, modality(spacing_mm=(1.0, 1.0, 1.0), fit=Fit(resample=True)))
    assert plan.target.shape == (8, 8, 16)
    assert plan.target.spacing_mm == pytest.approx((1.0, 1.0, 1.0))


def test_the_spacing_is_compared_after_the_axes_are_swapped() -> None:
    geometry = Geometry((3, 4, 5), affine_of("SAR", (3.0, 1.0, 1.0)))
    plan = plan_fit(geometry, modality(orientation="RAS", spacing_mm=(1.0, 1.0, 3.0)))
    assert (plan.exact, plan.target.shape) == (True, (5, 4, 3))


@pytest.mark.parametrize(
    ("fit", "size"),
    [(Fit(), (5, 4, 4)), (Fit(), (3, 4, 4)), (Fit(crop=True), (3, 4, 4)), (Fit(pad=True), (5, 4, 4))],
)
def test_another_shape_is_refused_unless_the_bundle_allows_it(fit: Fit, size: tuple[int, ...]) -> None:
    assert _refusal(Geometry(size), shape=(4, 4, 4), fit=fit) == ("SHAPE_MISMATCH", "shape")


@pytest.mark.parametrize(
    ("fit", "wanted"), [(Fit(pad=True), 16), (Fit(crop=True), 8), (Fit(resize=True), 8), (Fit(crop=True, pad=True), 16)]
)
def test_a_multiple_is_met_as_the_bundle_allows(fit: Fit, wanted: int) -> None:
    assert plan_fit(Geometry((11, 8, 8)), modality(multiples=(8, 8, 8), fit=fit)).target.shape == (wanted, 8, 8)


def test_a_size_that_is_no_multiple_is_refused_unless_the_bundle_allows_it() -> None:
    assert _refusal(Geometry((11, 8, 8)), multiples=(8, 8, 8)) == ("SHAPE_MISMATCH", "shape")


def test_a_grid_beyond_all_measure_is_refused() -> None:
    geometry = Geometry((4096, 64, 64), affine_of("RAS", (1000.0, 1.0, 1.0)))
    stated = {"spacing_mm": (1.0, 1.0, 1.0), "fit": Fit(resample=True)}
    assert np.prod(geometry.shape) < MAX_GRID_VOXELS
    assert _refusal(geometry, **stated) == ("SHAPE_MISMATCH", "shape")


def test_resampling_follows_a_linear_ramp_in_the_patient() -> None:
    """Linear interpolation reproduces a linear function of place, so every inner voxel can be told by hand."""
    source = Geometry((9, 8, 7), affine_of("PIR", (1.5, 1.0, 2.0)))
    assert source.affine is not None

    def ramp(affine: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        places = np.stack([*np.indices(shape), np.ones(shape)])
        return np.tensordot([0.3, -0.7, 1.1, 5.0], np.tensordot(affine, places, axes=1), axes=1)

    stated = {"orientation": "RAS", "spacing_mm": (1.0, 1.0, 1.0), "fit": Fit(resample=True)}
    plan = plan_fit(source, modality(**stated))
    fitted = plan.apply(ramp(source.affine, source.shape), dtype=np.float64)
    assert plan.target.affine is not None
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(fitted[inner], ramp(plan.target.affine, plan.target.shape)[inner], atol=1e-9)
    back = plan.undo(ramp(plan.target.affine, plan.target.shape))
    np.testing.assert_allclose(back[inner], ramp(source.affine, source.shape)[inner], atol=1e-9)


def test_resizing_keeps_the_outer_faces_together() -> None:
    source = Geometry((4, 6, 3), affine_of("RAS"))
    plan = plan_fit(source, modality(shape=(8, 3, 3), fit=Fit(resize=True)))
    assert source.affine is not None and plan.target.affine is not None
    for shape, affine in ((source.shape, source.affine), (plan.target.shape, plan.target.affine)):
        low, high = affine @ [-0.5, -0.5, -0.5, 1.0], affine @ [*(np.array(shape) - 0.5), 1.0]
        np.testing.assert_allclose(low[:3], [6.5, -11.5, 2.5])
        np.testing.assert_allclose(high[:3], [10.5, -5.5, 5.5])


def test_a_constant_map_stays_constant_through_resampling() -> None:
    plan = plan_fit(Geometry((5, 6, 7), affine_of("RAS", (1.3, 0.7, 2.1))), modality(shape=(8, 8, 8), fit=Fit(resize=True)))
    np.testing.assert_allclose(plan.undo(np.full((8, 8, 8), 2.5)), 2.5)
    np.testing.assert_allclose(plan.apply(np.full((5, 6, 7), 2.5)), 2.5)


def test_labels_go_by_nearest_neighbour() -> None:
    labels = np.array([0, 7, 100], dtype=np.int32).reshape(3, 1, 1)
    plan = plan_fit(Geometry((3, 1, 1)), modality(shape=(9, 1, 1), fit=Fit(resize=True)))
    fitted = plan.apply(labels, nearest=True, dtype=np.int32)
    assert fitted.ravel().tolist() == [0, 0, 0, 7, 7, 7, 100, 100, 100]
    assert plan.undo(fitted, nearest=True).ravel().tolist() == [0, 7, 100]


def test_what_the_model_never_saw_is_zero_on_the_clients_grid() -> None:
    source = Geometry((16, 4, 4), affine_of("RAS", (0.5, 1.0, 1.0)))
    plan = plan_fit(source, modality(shape=(4, 4, 4), spacing_mm=(1.0, 1.0, 1.0), fit=Fit(resample=True, crop=True)))
    seen = plan.undo(np.ones((4, 4, 4)))[:, 0, 0]
    assert seen.tolist() == [0.0] * 4 + [1.0] * 8 + [0.0] * 4


def test_a_voxel_that_no_evaluation_reached_stays_the_only_one() -> None:
    line = np.array([1.0, np.nan, 3.0, 4.0])
    moved = lay_over(line, [AxisMap(1.0, 0.0, 4, 4).inverse()], nearest=False, dtype=np.float64)
    halved = lay_over(line, [AxisMap(0.5, 0.0, 4, 7)], nearest=False, dtype=np.float64)
    assert np.isnan(moved).tolist() == [False, True, False, False]
    assert np.isnan(halved).tolist() == [False, True, True, True, False, False, False]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(-12, 12), st.sampled_from([-1.0, 1.0]))
@settings(max_examples=200, deadline=None)
def test_an_exact_axis_equals_its_definition(source: int, size: int, start: int, step: float) -> None:
    values = np.arange(1.0, source + 1)
    moved = lay_over(values, [AxisMap(step, float(start), source, size)], nearest=False, dtype=np.float64)
    places = [round(step * j + start) for j in range(size)]
    assert moved.tolist() == [values[place] if 0 <= place < source else 0.0 for place in places]


def test_axes_that_lean_are_told() -> None:
    def leaning(degrees: float) -> Geometry:
        turn = np.deg2rad(degrees)
        affine = np.eye(4)
        affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        return Geometry((4, 4, 4), affine)

    assert plan_fit(leaning(20), modality(orientation="RAS")).oblique
    assert not plan_fit(leaning(5), modality(orientation="RAS")).oblique
    assert not plan_fit(leaning(20), modality()).oblique


def test_a_fit_is_told_in_words() -> None:
    assert describe_fit(Fit()) == ""
    assert describe_fit(Fit(crop=True, pad=True)) == "cropped evenly, padded evenly with zeros"
