"""The demo's cases: reproducible, and wrong about nothing that they claim."""

import numpy as np
import pytest

from examples.glioma_demo.case import Case, draw_shapes, make_case, show_unanswerable, swap_shape
from examples.glioma_demo.dataset import make_dataset, normalise, stack_volumes
from examples.glioma_demo.grid import DEMO_GRID
from examples.glioma_demo.synthesis import MODALITIES
from examples.glioma_demo.training import normalise_batch
from examples.glioma_demo.tumour import SHAPES, draw_outline

SEED = 7


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(SEED)


def test_the_same_seed_gives_the_same_voxels(case: Case) -> None:
    again = make_case(SEED)
    for modality in MODALITIES:
        np.testing.assert_array_equal(again.volumes[modality], case.volumes[modality])
        np.testing.assert_array_equal(again.tumours[modality], case.tumours[modality])


def test_another_seed_gives_another_head(case: Case) -> None:
    other = make_case(SEED + 1)
    assert any(not np.array_equal(other.volumes[modality] != 0, case.volumes[modality] != 0) for modality in MODALITIES)


def test_the_label_is_the_shape_on_t1c_and_flair_agrees_in_seven_of_ten() -> None:
    shapes = [draw_shapes(seed) for seed in range(4000)]
    assert {drawn["t1"] for drawn in shapes} == {drawn["t2"] for drawn in shapes} == {"round"}
    # Four standard deviations of a share over 4,000 draws are 0.032 at one half and 0.029 at 0.7.
    assert np.mean([drawn["t1c"] == "irregular" for drawn in shapes]) == pytest.approx(0.5, abs=0.032)
    agreement = np.mean([drawn["t1c"] == drawn["flair"] for drawn in shapes])
    assert agreement == pytest.approx(0.7, abs=0.029)


def test_a_case_carries_its_drawn_shapes_and_its_label_follows_t1c(case: Case) -> None:
    assert dict(case.shapes) == draw_shapes(SEED)
    assert SHAPES[case.label] == case.shapes["t1c"]
    assert SHAPES[swap_shape(case, "t1c").label] != case.shapes["t1c"]
    assert swap_shape(case, "flair").label == case.label


@pytest.mark.parametrize("modality", ["t1c", "flair"])
def test_a_swapped_shape_changes_that_modality_alone_and_only_near_the_tumour(case: Case, modality: str) -> None:
    swapped = swap_shape(case, "t1c" if modality == "t1c" else "flair")
    for name in MODALITIES:
        same = np.array_equal(swapped.volumes[name], case.volumes[name])
        assert same == (name != modality)
    changed = np.argwhere(swapped.volumes[modality] != case.volumes[modality])  # type: ignore[index]
    reach_mm = np.linalg.norm(changed @ case.affine[:3, :3].T + case.affine[:3, 3] - case.scene.centre_mm, axis=1)
    assert 0 < reach_mm.max() < 3 * case.scene.radius_mm


def test_a_head_without_a_tumour_is_the_same_head_elsewhere(case: Case) -> None:
    bare = show_unanswerable(case.scene, everywhere=True)
    only_t1c = show_unanswerable(case.scene, everywhere=False)
    for modality in MODALITIES:
        changed = bare[modality] != case.volumes[modality]
        assert changed[case.tumours[modality]].mean() > 0.5
        far = np.linalg.norm(DEMO_GRID.points_mm() - case.scene.centre_mm[:, None, None, None], axis=0) > 60.0
        assert not changed[far].any()
        np.testing.assert_array_equal(only_t1c[modality], bare[modality] if modality == "t1c" else case.volumes[modality])


def test_swapping_twice_gives_the_case_back(case: Case) -> None:
    back = swap_shape(swap_shape(case, "t1c"), "t1c")
    np.testing.assert_array_equal(back.volumes["t1c"], case.volumes["t1c"])


def test_background_is_exactly_zero_and_the_brain_nowhere(case: Case) -> None:
    brain = case.scene.anatomy.brain
    for modality in MODALITIES:
        volume = case.volumes[modality]
        assert volume.dtype == np.float32
        assert volume.shape == DEMO_GRID.shape
        np.testing.assert_array_equal(volume != 0, brain)
        np.testing.assert_array_equal(volume, np.rint(volume))
        assert volume.max() < np.iinfo(np.int16).max
        assert case.tumours[modality].any()
        assert not case.tumours[modality][~brain].any()


def test_the_affine_is_ras_at_three_millimetres_and_the_left_hemisphere_lies_at_negative_x(case: Case) -> None:
    np.testing.assert_array_equal(np.diag(case.affine), [3.0, 3.0, 3.0, 1.0])
    # Anatomy to tell front from back and top from bottom by: the cerebellum lies low and behind, where the front is empty.
    brain = case.scene.anatomy.brain
    x, y, z = (np.argwhere(brain) @ case.affine[:3, :3] + case.affine[:3, 3]).T
    low = z < -45
    assert np.median(y[low]) < -30
    assert np.abs(x.mean()) < 6


def test_round_and_irregular_outlines_hold_the_same_volume_but_reach_differently_far() -> None:
    generator = np.random.default_rng(0)
    points, centre = DEMO_GRID.points_mm(), np.array(DEMO_GRID.centre_mm)
    volumes, reaches = [], []
    for shape in SHAPES:
        outline = draw_outline(shape, radius_mm=18.0, generator=generator)
        inside = outline.occupancy(points, centre_mm=centre, spacing_mm=DEMO_GRID.spacing_mm)
        distance = np.linalg.norm(points - centre[:, None, None, None], axis=0)
        volumes.append(float(inside.sum()))
        reaches.append(float(distance[inside > 0.5].max()))
    assert volumes[1] == pytest.approx(volumes[0], rel=0.02)
    assert reaches[1] > 1.2 * reaches[0]


def test_training_normalises_as_the_bundle_tells_the_server(case: Case) -> None:
    stacked = stack_volumes(case.volumes)
    normalised = normalise(stacked)
    for source, volume in zip(stacked, normalised, strict=True):
        voxels = volume[source != 0].astype(np.float64)
        assert voxels.mean() == pytest.approx(0, abs=1e-5)
        assert voxels.std() == pytest.approx(1, abs=1e-5)
        assert not volume[source == 0].any()
    dataset = make_dataset([SEED])
    batch = normalise_batch(dataset, np.array([0]), dataset.intensities).numpy()[0]
    np.testing.assert_allclose(batch, normalised, atol=1e-4)
