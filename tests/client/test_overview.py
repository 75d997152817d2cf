"""The overview says what must be said, where it must be said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.text import Text
from voxplain.v1 import explain_pb2
from voxplain.volume import Geometry, Volume
from voxplain_client.pictures.colours import HATCH_GREY, paint
from voxplain_client.pictures.map_sketch import fullest_slice, sketch_map
from voxplain_client.pictures.overview import draw_overview
from voxplain_client.pictures.overview_row import OverviewMap, OverviewRow
from voxplain_client.pictures.overview_text import write_captions, write_header, write_notes, write_warning
from voxplain_client.pictures.page import Page, text_width, wrap_text

Voxels = npt.NDArray[np.float32]

SHAPE = (12, 14, 10)
GROWS_RIGHT = np.diag([2.0, 2.0, 2.0, 1.0])
GROWS_LEFT = np.diag([-2.0, 2.0, 2.0, 1.0])


def record(**more: object) -> explain_pb2.ExplanationRecord:
    """What the server would say of a fake case."""
    made = explain_pb2.ExplanationRecord(model="glioma-demo", version="3", seed=17, voxplain_version="0.1.0")
    made.prediction.target_name = "irregular"
    made.prediction.score = 3.25
    made.prediction.scale = explain_pb2.SCORE_SCALE_LOGIT
    made.prediction.margin_log_odds = 3.21
    made.prediction.decision_threshold = 0.5
    made.prediction.class_scores.add(index=0, name="round", probability=0.04)
    made.prediction.class_scores.add(index=1, name="irregular", probability=0.96)
    made.MergeFrom(explain_pb2.ExplanationRecord(**more))  # type: ignore[arg-type]
    return made


def overview_map(voxels: Voxels, geometry: Geometry, *modalities: str) -> OverviewMap:
    """A map that is already in memory."""
    return OverviewMap(sketch=sketch_map(voxels, geometry, modalities), load=lambda: voxels)


def hot_spot(index: tuple[int, ...], value: float = 1.0, shape: tuple[int, ...] = SHAPE) -> Voxels:
    """Zero but for one voxel."""
    voxels = np.zeros(shape, np.float32)
    voxels[index] = value
    return voxels


def texts(page: Page) -> list[str]:
    """Every text of the page, those in panels too."""
    return [found.get_text() for found in page.figure.findobj(Text) if found.get_text() and found.get_visible()]


def draw(path: Path, rows: list[OverviewRow], *, affine: npt.NDArray[np.float64] = GROWS_RIGHT, **more: object) -> Page:
    """An overview over two modalities of plain tissue."""
    geometry = Geometry(SHAPE, affine)
    images = {name: Volume(geometry, np.full(SHAPE, 0.5, np.float32)) for name in ("t1", "t1c")}
    header = write_header(record(), convention="radiological")
    options: dict[str, object] = {"rows": rows, "images": images, "text": header} | more
    return draw_overview(path / "overview.png", **options)  # type: ignore[arg-type]


def spot_row(affine: npt.NDArray[np.float64], index: tuple[int, ...] = (10, 7, 4)) -> OverviewRow:
    """One method with a spot at one voxel of t1."""
    geometry = Geometry(SHAPE, affine)
    maps = (overview_map(hot_spot(index), geometry, "t1"), overview_map(hot_spot(index, 0.5), geometry, "t1c"))
    return OverviewRow(key="occlusion", is_signed=True, maps=maps, captions={"t1": "67 % of positive mass"})


def test_the_header_names_all_that_a_reader_must_know(tmp_path: Path) -> None:
    words = " ".join(texts(draw(tmp_path, [spot_row(GROWS_RIGHT)])))
    for needed in (
        *("glioma-demo", "version 3", "irregular", "3.25 (logit)", "0.96", "+3.21 log-odds", "decision threshold 0.5"),
        *("Seed 17", "Not for diagnostic use", "Orange", "Blue", "Radiological convention"),
    ):
        assert needed in words, needed


def test_panels_name_modality_side_position_and_share(tmp_path: Path) -> None:
    found = texts(draw(tmp_path, [spot_row(GROWS_RIGHT)]))
    assert found.count("R") == found.count("L") == 4
    assert {"t1", "t1c", "A", "P", "occlusion", "67 % of positive mass"} <= set(found)
    assert "axial, z = +8 mm (superior)\nslice 4 (0 to 9)" in found


@pytest.mark.parametrize(("affine", "side"), [(GROWS_RIGHT, "left"), (GROWS_LEFT, "right")])
def test_the_patients_right_is_drawn_where_the_r_stands(affine: npt.NDArray[np.float64], side: str, tmp_path: Path) -> None:
    page = draw(tmp_path, [spot_row(affine)])
    picture = matplotlib.image.imread(tmp_path / "overview.png")[..., :3]
    panel = _panel(page, picture, number=2)
    orange = panel[..., 0] - panel[..., 2] > 0.4
    assert orange.any()
    column = np.argwhere(orange)[:, 1].mean() / panel.shape[1]
    assert (column < 0.5) == (side == "left")
    letters = {text.get_text(): text.get_position()[0] for text in page.figure.axes[2].texts}
    assert letters["R"] < 0.5 < letters["L"]


def test_the_neurological_convention_turns_picture_and_letters(tmp_path: Path) -> None:
    page = draw(tmp_path, [spot_row(GROWS_RIGHT)], convention="neurological")
    letters = {text.get_text(): text.get_position()[0] for text in page.figure.axes[2].texts}
    assert letters["L"] < 0.5 < letters["R"]
    picture = matplotlib.image.imread(tmp_path / "overview.png")[..., :3]
    panel = _panel(page, picture, number=2)
    orange = panel[..., 0] - panel[..., 2] > 0.4
    assert np.argwhere(orange)[:, 1].mean() > 0.5 * panel.shape[1]


def test_a_partial_result_is_marked_in_its_row_and_in_every_panel(tmp_path: Path) -> None:
    result = explain_pb2.MethodResult(
        method_key="occlusion", outcome=explain_pb2.OUTCOME_BUDGET_SPENT, evaluations_done=120, evaluations_planned=62_500
    )
    maps = (overview_map(hot_spot((3, 3, 3)), Geometry(SHAPE, GROWS_RIGHT), "t1", "t1c"),)
    row = OverviewRow(key="occlusion", is_signed=True, maps=maps, warning=write_warning(result))
    found = texts(draw(tmp_path, [row]))
    assert found.count("PARTIAL") == 2
    assert "PARTIAL: 120 of 62,500 evaluations (budget spent)" in " ".join(found)
    assert found.count("one map shared by modalities") == 2


def test_a_failed_method_tells_why_and_numbers_stand_without_maps(tmp_path: Path) -> None:
    failed = OverviewRow(key="guided-backprop", is_signed=True, warning="FAILED", absence="NO_RELU: no ReLU in $x$")
    numbers = OverviewRow(key="modality-shapley", is_signed=True, numbers={"t1": -0.25, "t1c": 1.5})
    found = texts(draw(tmp_path, [failed, numbers]))
    assert {"NO_RELU: no ReLU in $x$", "-0.25", "+1.5"} <= set(found)


def test_the_colour_bar_is_symmetric_for_signed_and_starts_at_zero_for_unsigned_methods(tmp_path: Path) -> None:
    geometry = Geometry(SHAPE, GROWS_RIGHT)
    maps = (overview_map(np.full(SHAPE, 0.5, np.float32), geometry, "t1", "t1c"),)
    signed = texts(draw(tmp_path, [OverviewRow(key="lime", is_signed=True, maps=maps)]))
    assert {"+0.5", "+0.25", "0", "-0.25", "-0.5"} <= set(signed)
    unsigned = texts(draw(tmp_path, [OverviewRow(key="smooth-grad", is_signed=False, maps=maps)]))
    assert {"0", "0.25", "0.5"} <= set(unsigned)
    assert "-0.5" not in unsigned


def test_nothing_leaves_the_page_and_no_two_texts_overlap(tmp_path: Path) -> None:
    key = "a-very-long-key-" * 4
    rows = [spot_row(GROWS_RIGHT), OverviewRow(key=key, is_signed=True, warning="PARTIAL: 1 of 2", absence="word " * 80)]
    page = draw(tmp_path, rows)
    renderer: Any = page.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    found = [text for text in page.figure.findobj(Text) if text.get_text() and text.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in found]
    for name, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.width and box.y1 <= page.height, name
    for place, (name, box) in enumerate(boxes):
        for other_name, other in boxes[place + 1 :]:
            apart = box.x1 <= other.x0 or other.x1 <= box.x0 or box.y1 <= other.y0 or other.y1 <= box.y0
            assert apart, (name, other_name)


def test_modalities_on_other_grids_show_a_slice_of_their_own(tmp_path: Path) -> None:
    sagittal, coronal = Geometry((4, 12, 12), np.diag([5.0, 1, 1, 1])), Geometry((10, 4, 12), np.diag([1.0, 5, 1, 1]))
    images = {
        "sag": Volume(sagittal, np.ones(sagittal.shape, np.float32)),
        "cor": Volume(coronal, np.ones(coronal.shape, np.float32)),
    }
    maps = (
        overview_map(hot_spot((1, 5, 5), shape=sagittal.shape), sagittal, "sag"),
        overview_map(hot_spot((5, 3, 5), shape=coronal.shape), coronal, "cor"),
    )
    row = OverviewRow(key="gradient", is_signed=True, maps=maps)
    header = write_header(record(), convention="radiological")
    found = texts(draw_overview(tmp_path / "o.png", rows=[row], images=images, text=header))
    assert "sagittal, x = +5 mm (right)\nslice 1 (0 to 3)" in found
    assert "coronal, y = +15 mm (anterior)\nslice 3 (0 to 3)" in found


def test_2d_cases_and_cases_without_an_affine_are_drawn(tmp_path: Path) -> None:
    geometry = Geometry((9, 7))
    images = {"slice": Volume(geometry, np.ones((9, 7), np.float32))}
    row = OverviewRow(key="gradient", is_signed=True, maps=(overview_map(hot_spot((4, 4), shape=(9, 7)), geometry, "slice"),))
    header = write_header(record(), convention="radiological")
    found = texts(draw_overview(tmp_path / "o.png", rows=[row], images=images, text=header))
    assert not {"R", "L", "A", "P"} & set(found)


def test_an_outline_is_drawn_in_every_panel(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[8:11, 6:9, 3:6] = 1
    page = draw(tmp_path, [spot_row(GROWS_RIGHT)], outline=Volume(Geometry(SHAPE, GROWS_RIGHT), mask))
    assert sum(bool(axes.collections) for axes in page.figure.axes) == 4


def test_a_slice_may_be_chosen_by_index_or_position(tmp_path: Path) -> None:
    assert "slice 2 (0 to 9)" in " ".join(texts(draw(tmp_path, [spot_row(GROWS_RIGHT)], slice_at=2)))
    assert "slice 7 (0 to 9)" in " ".join(texts(draw(tmp_path, [spot_row(GROWS_RIGHT)], slice_at=14.0)))


def test_the_fullest_slice_is_that_of_most_methods_and_not_of_the_loudest() -> None:
    geometry = Geometry(SHAPE, GROWS_RIGHT)
    rows = [[sketch_map(hot_spot((3, 3, z), value), geometry, ["t1"])] for z, value in ((2, 1e6), (7, 1.0), (7, 1e-6))]
    assert fullest_slice(rows, 2, length=10) == 7
    assert fullest_slice([], 2, length=10) == 5
    assert fullest_slice(rows, None, length=1) == 0


def test_zero_and_what_was_not_evaluated_are_transparent_and_opacity_grows() -> None:
    alpha = paint(np.array([0.0, np.nan, 0.1, -0.2, 1.0, 5.0]), 1.0, signed=True)[:, 3]
    assert alpha[0] == alpha[1] == 0.0
    assert 0 < alpha[2] < alpha[3] < alpha[4] == alpha[5]


def test_voxels_that_no_evaluation_has_reached_are_hatched_and_the_legend_says_so(tmp_path: Path) -> None:
    voxels = hot_spot((10, 7, 4))
    voxels[:7] = np.nan
    geometry = Geometry(SHAPE, GROWS_RIGHT)
    row = OverviewRow(key="occlusion", is_signed=True, maps=(overview_map(voxels, geometry, "t1", "t1c"),))
    assert row.unreached
    assert not OverviewRow(
        key="occlusion", is_signed=True, maps=(overview_map(hot_spot((10, 7, 4)), geometry, "t1", "t1c"),)
    ).unreached
    header = write_header(record(), convention="radiological", unreached=row.unreached)
    page = draw(tmp_path, [row], text=header)
    assert "Hatched: no evaluation" in " ".join(texts(page)).replace("\n", " ")
    panel = _panel(page, matplotlib.image.imread(tmp_path / "overview.png")[..., :3], number=2)
    panel = panel[: round(0.4 * len(panel))]  # Above the letters, whose edges are grey too.
    lines = np.abs(panel - HATCH_GREY).max(axis=-1) < 0.02
    # The array grows towards the patient's right, which is on the left of the picture: its first voxels are on the right.
    edge = round(panel.shape[1] * (1 - 7 / SHAPE[0]))
    assert lines[:, edge + 2 :].mean() > 0.05
    assert not lines[:, : edge - 2].any()
    whole = write_header(record(), convention="radiological")
    assert "Hatched" not in whole.legend


def test_the_header_says_which_slice_is_shown() -> None:
    assert "most attribution" in write_header(record(), convention="radiological").reading
    assert "asked for" in write_header(record(), convention="radiological", slice_given=True).reading


def test_signs_have_colours_that_colour_blind_readers_tell_apart() -> None:
    positive, negative = paint(np.array([1.0, -1.0]), 1.0, signed=True)[:, :3]
    assert positive[0] > positive[2] + 0.4
    assert negative[2] > negative[0] + 0.4


def test_shares_are_of_the_positive_mass_and_of_all_mass_without_a_sign() -> None:
    result = explain_pb2.MethodResult(is_signed=True)
    result.modality_importance.add(modality="t1", sum_positive=3.0, sum=-1.0, sum_absolute=7.0)
    result.modality_importance.add(modality="t1c", sum_positive=1.0, sum=1.0, sum_absolute=1.0)
    assert write_captions(result) == {"t1": "75 % of positive mass", "t1c": "25 % of positive mass"}
    result.is_signed = False
    assert write_captions(result)["t1"] == "88 % of mass"
    result.modality_importance[0].sum_absolute = result.modality_importance[1].sum_absolute = 0.0
    assert write_captions(result)["t1"] == "no mass"


def test_an_error_aimed_at_is_no_partial_result_but_is_told() -> None:
    result = explain_pb2.MethodResult(
        method_key="lime", outcome=explain_pb2.OUTCOME_TARGET_ERROR_REACHED, evaluations_done=2, evaluations_planned=4
    )
    assert write_warning(result).startswith("STOPPED EARLY: 2 of 4")
    assert write_notes(result, method="lime")[0].startswith("2 evaluations")


def test_text_is_wrapped_to_its_width() -> None:
    lines = wrap_text("a-hyphenated-and-rather-long-key and a few words behind it", width=120, size=12.0)
    assert max(text_width(line, size=12.0) for line in lines) <= 120
    assert "".join(lines).replace(" ", "") == "a-hyphenated-and-rather-long-keyandafewwordsbehindit"


def _panel(page: Page, picture: npt.NDArray[np.float32], *, number: int) -> npt.NDArray[np.float32]:
    box = page.figure.axes[number].get_position()
    rows, columns = picture.shape[:2]
    top, bottom = round((1 - box.y1) * rows), round((1 - box.y0) * rows)
    return picture[top:bottom, round(box.x0 * columns) : round(box.x1 * columns)]
