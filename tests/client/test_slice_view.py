"""Left and right come from the affine, whatever the order of the array."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import numpy.typing as npt
import pytest
from voxplain.volume import Geometry, Volume
from voxplain_client.pictures.backdrop import sample_slice
from voxplain_client.pictures.slice_view import Convention, view_slices

SHAPE = (6, 8, 10)


def scanned(order: tuple[int, ...], signs: tuple[int, ...]) -> tuple[npt.NDArray[np.float64], Geometry]:
    """One head in any array order: voxels hold x, y, z in mm at [..., 0], [..., 1], [..., 2]."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1.0
    for axis, row in enumerate(order):
        affine[row, axis] = 2.0 * signs[axis]
    shape = tuple(SHAPE[row] for row in order)
    centre = affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    affine[:3, 3] = -centre
    indices = np.stack(np.meshgrid(*[np.arange(edge) for edge in shape], indexing="ij"), axis=-1)
    return indices @ affine[:3, :3].T + affine[:3, 3], Geometry(shape, affine)


EVERY_ORDER = [(order, signs) for order in permutations((0, 1, 2)) for signs in product((1, -1), repeat=3)]


@pytest.mark.parametrize("convention", ["radiological", "neurological"])
def test_an_axial_slice_looks_the_same_for_every_order_of_the_array(convention: Convention) -> None:
    for order, signs in EVERY_ORDER:
        mm, geometry = scanned(order, signs)
        view = view_slices(geometry, convention=convention)
        index = view.index_at(3.0)
        x, y, z = (view.cut(mm[..., row], index) for row in range(3))
        assert np.all(z == 3.0)
        assert view.plane == "axial"
        assert np.all(np.diff(y, axis=0) < 0), "anterior is at the top"
        towards_right = np.diff(x, axis=1)
        if convention == "radiological":
            assert (view.left, view.right) == ("R", "L")
            assert np.all(towards_right < 0)
        else:
            assert (view.left, view.right) == ("L", "R")
            assert np.all(towards_right > 0)
        assert (view.top, view.bottom) == ("A", "P")


def test_a_flipped_affine_swaps_the_picture_and_not_the_letters() -> None:
    array = np.zeros((6, 6, 6))
    array[5, 3, 3] = 1.0
    grows_right, grows_left = np.diag([1.0, 1.0, 1.0, 1.0]), np.diag([-1.0, 1.0, 1.0, 1.0])
    views = [view_slices(Geometry((6, 6, 6), affine)) for affine in (grows_right, grows_left)]
    assert [view.left for view in views] == ["R", "R"]
    columns = [int(np.argwhere(view.cut(array, 3))[0][1]) for view in views]
    assert columns == [0, 5]


def test_thick_sagittal_and_coronal_slices_are_shown_as_they_were_acquired() -> None:
    sagittal = view_slices(Geometry((4, 20, 20), np.diag([-5.0, 1.0, 1.0, 1.0])))
    assert (sagittal.plane, sagittal.left, sagittal.right, sagittal.top, sagittal.bottom) == ("sagittal", "A", "P", "S", "I")
    coronal = view_slices(Geometry((20, 4, 20), np.diag([1.0, 5.0, 1.0, 1.0])))
    assert (coronal.plane, coronal.left, coronal.top) == ("coronal", "R", "S")


def test_the_position_is_told_in_millimetres() -> None:
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[2, 3] = -30.0
    view = view_slices(Geometry((8, 8, 20), affine))
    assert view.position(14) == ("axial, z = +12 mm (superior)", "slice 14 (0 to 19)")
    assert view.position(8) == ("axial, z = -6 mm (inferior)", "slice 8 (0 to 19)")
    assert view.index_at(12.4) == 14
    assert view.index_at(999.0) == 19


def test_the_reach_goes_from_border_to_border_whichever_way_the_slices_run() -> None:
    for step in (2.0, -2.0):
        affine = np.diag([1.0, 1.0, step, 1.0])
        assert view_slices(Geometry((6, 6, 10), affine)).reach_mm() == ((-1.0, 19.0) if step > 0 else (-19.0, 1.0))
    assert view_slices(Geometry((6, 6, 10))).reach_mm() == (-np.inf, np.inf)


def test_without_an_affine_no_side_is_claimed() -> None:
    view = view_slices(Geometry((8, 8, 20)))
    assert (view.left, view.right, view.top, view.bottom) == ("", "", "", "")
    assert view.position(3) == ("position not known", "slice 3 (0 to 19)")


def test_a_2d_grid_is_its_own_slice() -> None:
    view = view_slices(Geometry((6, 8), np.diag([1.0, 2.0, 1.0, 1.0])))
    assert view.slice_axis is None
    assert (view.plane, view.left, view.top) == ("axial", "R", "A")
    assert view.aspect == 2.0
    assert view.cut(np.zeros((6, 8)), 0).shape == (8, 6)


def test_an_image_on_another_grid_is_sampled_where_the_map_lies() -> None:
    mm, geometry = scanned((2, 0, 1), (-1, 1, -1))
    _, others = scanned((0, 1, 2), (1, 1, 1))
    view = view_slices(others)
    index = view.index_at(1.0)
    for row, name in enumerate("xyz"):
        seen = sample_slice(Volume(geometry, mm[..., row]), view, index)
        wanted = (view.voxel_indices(index) @ others.affine[:3, :3].T + others.affine[:3, 3])[..., row]  # type: ignore[index]
        np.testing.assert_allclose(seen, wanted, err_msg=name)


def test_outside_an_image_there_is_nothing() -> None:
    far = np.eye(4)
    far[0, 3] = 100.0
    image = Volume(Geometry((4, 4, 4), far), np.ones((4, 4, 4)))
    assert not sample_slice(image, view_slices(Geometry((5, 5, 5), np.eye(4))), 2).any()
