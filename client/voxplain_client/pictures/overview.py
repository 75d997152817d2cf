"""The overview: one row for each method, one column for each modality, the same slice everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from voxplain.volume import Volume

from voxplain_client.pictures.backdrop import sample_slice
from voxplain_client.pictures.colours import AGAINST, BACKDROP, FOR, blend, hatch, paint, window
from voxplain_client.pictures.map_sketch import fullest_slice
from voxplain_client.pictures.overview_row import OverviewMap, OverviewRow
from voxplain_client.pictures.overview_text import OverviewText
from voxplain_client.pictures.page import Page, text_height, wrap_text
from voxplain_client.pictures.slice_view import Convention, SliceView, view_slices

WIDTH = 1600
MARGIN = 30
LABEL_WIDTH = 250
BAR_WIDTH = 130
GAP = 14
SMALLEST_PANEL = 180
LARGEST_PANEL = 330
CAPTION_HEIGHT = 38
NUMBER_HEIGHT = 110
ABSENCE_HEIGHT = 90

TITLE, BODY, HEADING, KEY, NOTE, CAPTION = 20.0, 12.5, 22.0, 14.0, 10.5, 12.0
RED = "#b00020"
_OUTLINED = [withStroke(linewidth=2.5, foreground="black")]


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A modality in the overview.

    Attributes:
        modality: its name.
        image: its volume, as the client sent it.
        view: the plane of the grid on which its maps lie.
        index: the slice.
        panel_width, panel_height: pixels.
    """

    modality: str
    image: Volume
    view: SliceView
    index: int
    panel_width: float
    panel_height: float


def draw_overview(
    path: Path,
    *,
    rows: Sequence[OverviewRow],
    images: Mapping[str, Volume],
    text: OverviewText,
    convention: Convention = "radiological",
    outline: Volume | None = None,
    slice_at: int | float | None = None,
) -> Page:
    """Draw all methods on one page and write it as a PNG.

    Args:
        path: where to.
        rows: the methods in their order.
        images: the volumes in the model's order.
        text: the header.
        convention: how left and right are drawn.
        outline: a mask whose border is drawn in every panel.
        slice_at: an index (int) or a position in mm (float); None: the slice that holds most mass of attribution.

    Returns:
        The page, for those who want to look at what was drawn.
    """
    columns = _columns(rows, images, convention=convention, slice_at=slice_at)
    width = int(2 * MARGIN + LABEL_WIDTH + BAR_WIDTH + sum(column.panel_width + GAP for column in columns))
    width = max(width, WIDTH)
    heading_height = _heading_height(columns)
    header = _header_lines(text, width=width - 2 * MARGIN)
    header_height = sum(text_height(1, size=size) for _, size, _ in header) + 2 * GAP
    panel_height = max(column.panel_height for column in columns)
    heights = [panel_height + CAPTION_HEIGHT, *(_row_height(row, panel_height) for row in rows)]
    page = Page(width=width, height=int(MARGIN + header_height + heading_height + sum(heights) + MARGIN))
    top: float = MARGIN
    for line, size, style in header:
        page.write(line, MARGIN, top, size=size, **style)
        top += text_height(1, size=size)
    top += 2 * GAP
    _write_headings(page, columns, top)
    top += heading_height
    _draw_images(page, columns, top, outline=outline)
    top += heights[0]
    for row, height in zip(rows, heights[1:], strict=True):
        _draw_row(page, row, columns, top, panel_height=panel_height, outline=outline)
        top += height
    page.save(path)
    return page


def _columns(
    rows: Sequence[OverviewRow],
    images: Mapping[str, Volume],
    *,
    convention: Convention,
    slice_at: int | float | None,
) -> list[Column]:
    free = WIDTH - 2 * MARGIN - LABEL_WIDTH - BAR_WIDTH - GAP * len(images)
    panel_width = float(np.clip(free / len(images), SMALLEST_PANEL, LARGEST_PANEL))
    columns: list[Column] = []
    for modality, image in images.items():
        maps = [found for row in rows if (found := row.map_of(modality)) is not None]
        view = view_slices(maps[0].sketch.geometry if maps else image.geometry, convention=convention)
        index = _slice_index(rows, view, slice_at=slice_at)
        pixel_rows, pixel_columns = view.geometry.shape[view.row_axis], view.geometry.shape[view.column_axis]
        tall = panel_width * view.aspect * pixel_rows / pixel_columns
        height = min(tall, 1.3 * panel_width)
        columns.append(Column(modality, image, view, index, panel_width * height / tall, height))
    return columns


def _slice_index(rows: Sequence[OverviewRow], view: SliceView, *, slice_at: int | float | None) -> int:
    if view.slice_axis is None:
        return 0
    length = view.geometry.shape[view.slice_axis]
    if isinstance(slice_at, float):
        return view.index_at(slice_at)
    if slice_at is not None:
        return min(max(slice_at, 0), length - 1)
    on_grid = [[one.sketch for one in row.maps if one.sketch.geometry.same_grid(view.geometry)] for row in rows]
    return fullest_slice(on_grid, view.slice_axis, length=length)


def _header_lines(text: OverviewText, *, width: float) -> list[tuple[str, float, dict[str, str]]]:
    parts: list[tuple[str, float, dict[str, str]]] = [
        (text.title, TITLE, {"weight": "bold"}),
        ("Not for diagnostic use.", BODY + 3, {"weight": "bold", "color": RED}),
        (text.answer, BODY, {}),
        (text.legend, BODY, {}),
        (text.reading, NOTE, {}),
        *((f"Caution. {caution}", BODY, {"color": RED}) for caution in text.cautions),
        (text.footer, NOTE, {"color": "#555555"}),
    ]
    return [
        (line, size, style)
        for part, size, style in parts
        for line in wrap_text(part, width=width, size=size, weight=style.get("weight", "normal"))
    ]


def _heading_height(columns: Sequence[Column]) -> float:
    places = max(len(_place_lines(column)) for column in columns)
    return text_height(1, size=HEADING) + text_height(places, size=NOTE) + GAP


def _place_lines(column: Column) -> list[str]:
    parts = column.view.position(column.index)
    return [line for part in parts for line in wrap_text(part, width=column.panel_width, size=NOTE)]


def _row_height(row: OverviewRow, panel_height: float) -> float:
    labels = text_height(len(_label_lines(row)), size=KEY) + GAP
    if row.maps:
        return max(panel_height + CAPTION_HEIGHT, labels)
    return max(NUMBER_HEIGHT if row.numbers else ABSENCE_HEIGHT, labels)


def _write_headings(page: Page, columns: Sequence[Column], top: float) -> None:
    for left, column in _lefts(columns):
        page.write(column.modality, left + column.panel_width / 2, top, size=HEADING, weight="bold", ha="center")
        below = top + text_height(1, size=HEADING)
        page.write("\n".join(_place_lines(column)), left + column.panel_width / 2, below, size=NOTE, ha="center")


def _lefts(columns: Sequence[Column]) -> list[tuple[float, Column]]:
    left, found = float(MARGIN + LABEL_WIDTH), []
    for column in columns:
        found.append((left, column))
        left += column.panel_width + GAP
    return found


def _draw_images(page: Page, columns: Sequence[Column], top: float, *, outline: Volume | None) -> None:
    page.write("images", MARGIN, top, size=KEY, weight="bold")
    page.write("as they were sent", MARGIN, top + text_height(1, size=KEY), size=NOTE)
    for left, column in _lefts(columns):
        axes = page.panel(left, top, width=column.panel_width, height=column.panel_height)
        grey = window(sample_slice(column.image, column.view, column.index))
        _show(axes, np.repeat(grey[..., None], 3, axis=-1), column, outline=outline, vertical=True)


def _draw_row(
    page: Page, row: OverviewRow, columns: Sequence[Column], top: float, *, panel_height: float, outline: Volume | None
) -> None:
    line_top = top
    for line, size, style in _label_lines(row):
        page.write(line, MARGIN, line_top, size=size, **style)
        line_top += text_height(1, size=size)
    if row.maps:
        for left, column in _lefts(columns):
            _draw_map(page, row, column, left, top, outline=outline)
        last, column = _lefts(columns)[-1]
        _draw_bar(page, row, last + column.panel_width + 2 * GAP, top, height=panel_height)
    elif row.numbers:
        for left, column in _lefts(columns):
            _draw_number(page, row, column, left, top)
    else:
        lines = wrap_text(row.absence, width=page.width - 2 * MARGIN - LABEL_WIDTH, size=BODY)
        page.write("\n".join(lines), MARGIN + LABEL_WIDTH, top, size=BODY, color=RED)


def _label_lines(row: OverviewRow) -> list[tuple[str, float, dict[str, str]]]:
    width = LABEL_WIDTH - 2 * GAP
    parts: list[tuple[str, float, dict[str, str]]] = [(row.key, KEY, {"weight": "bold"})]
    if row.warning:
        parts.append((row.warning, CAPTION, {"weight": "bold", "color": RED}))
    parts += [(note, NOTE, {}) for note in row.notes]
    return [
        (line, size, style)
        for part, size, style in parts
        for line in wrap_text(part, width=width, size=size, weight=style.get("weight", "normal"))
    ]


def _draw_map(page: Page, row: OverviewRow, column: Column, left: float, top: float, *, outline: Volume | None) -> None:
    axes = page.panel(left, top, width=column.panel_width, height=column.panel_height)
    found = row.map_of(column.modality)
    grey = BACKDROP * window(sample_slice(column.image, column.view, column.index))
    picture = np.repeat(grey[..., None], 3, axis=-1)
    if found is not None:
        values = _slice_of(found, column)
        if row.scale > 0:
            picture = blend(grey, paint(values, row.scale, signed=row.is_signed))
        unreached = np.isnan(values)
        if unreached.any():
            picture = hatch(picture, unreached)
    _show(axes, picture, column, outline=outline, vertical=False)
    if row.warning:
        word = row.warning.partition(":")[0]
        axes.text(
            *(0.5, 0.97), word, transform=axes.transAxes, ha="center", va="top", size=NOTE, weight="bold", color="white",
            bbox={"facecolor": RED, "edgecolor": "none", "pad": 2.0}, parse_math=False,
        )  # fmt: skip
    caption = row.captions.get(column.modality, "")
    if found is None:
        caption = "no map for this modality"
    elif len(found.sketch.modalities) > 1:
        caption = "one map shared by modalities"
    page.write(caption, left + column.panel_width / 2, top + column.panel_height + 4, size=CAPTION, ha="center")


def _slice_of(found: OverviewMap, column: Column) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    if found.sketch.geometry.same_grid(column.view.geometry):
        return column.view.cut(found.load(), column.index)
    return sample_slice(Volume(geometry=found.sketch.geometry, voxels=found.load()), column.view, column.index)


def _draw_bar(page: Page, row: OverviewRow, left: float, top: float, *, height: float) -> None:
    if row.scale <= 0:
        page.write("zero\neverywhere", left, top, size=NOTE)
        return
    bottom_note = text_height(2, size=NOTE) if row.largest > row.scale else 0.0
    low = -row.scale if row.is_signed else 0.0
    axes = page.panel(left, top + 8, width=20, height=height - 16 - bottom_note)
    values = np.linspace(row.scale, low, 256)[:, None]
    # Half on black, half on mid-grey, as the colours lie on dark and on bright tissue.
    grey = np.tile(np.array([[0.0, 0.5]]), (256, 1))
    axes.imshow(blend(grey, paint(np.repeat(values, 2, axis=1), row.scale, signed=row.is_signed)), aspect="auto",
                extent=(0.0, 1.0, low, row.scale))  # fmt: skip
    ticks = np.linspace(low, row.scale, 5 if row.is_signed else 3)
    axes.yaxis.tick_right()
    axes.set_yticks(ticks, [f"{tick:+.2g}" if row.is_signed and tick else f"{tick:.2g}" for tick in ticks], size=NOTE)
    axes.tick_params(axis="y", length=3, pad=3)
    if bottom_note:
        page.write(f"largest value\n{row.largest:.2g}", left, top + height - bottom_note, size=NOTE - 1)


def _draw_number(page: Page, row: OverviewRow, column: Column, left: float, top: float) -> None:
    number = row.numbers.get(column.modality)
    if number is None:
        return
    largest = max(abs(value) for value in row.numbers.values()) or 1.0
    axes = page.panel(left, top + 6, width=column.panel_width, height=30)
    axes.set_facecolor("#eeeeee")
    axes.set_xlim(-1.0, 1.0)
    axes.set_ylim(0.0, 1.0)
    axes.barh(0.5, number / largest, height=0.8, color=(FOR if number >= 0 else AGAINST)[0])
    axes.axvline(0.0, color="black", linewidth=1.0)
    page.write(f"{number:+.3g}", left + column.panel_width / 2, top + 42, size=KEY, weight="bold", ha="center")
    caption = row.captions.get(column.modality, "")
    page.write(caption, left + column.panel_width / 2, top + 44 + text_height(1, size=KEY), size=CAPTION, ha="center")


def _show(
    axes: Axes,
    picture: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    column: Column,
    *,
    outline: Volume | None,
    vertical: bool,
) -> None:
    view = column.view
    rows, columns = view.geometry.shape[view.row_axis], view.geometry.shape[view.column_axis]
    # A hatched picture has more pixels than voxels; the outline is drawn in voxels.
    axes.imshow(picture, aspect="auto", interpolation="nearest", extent=(-0.5, columns - 0.5, rows - 0.5, -0.5))
    if outline is not None:
        region = sample_slice(outline, view, column.index) != 0
        if region.any() and not region.all():
            axes.contour(region.astype(float), levels=[0.5], colors="white", linewidths=1.2)
    letters = [(view.left, 0.02, 0.5, "left", "center"), (view.right, 0.98, 0.5, "right", "center")]
    if vertical:
        letters += [(view.top, 0.5, 0.98, "center", "top"), (view.bottom, 0.5, 0.02, "center", "bottom")]
    for letter, x, y, across, along in letters:
        axes.text(
            *(x, y), letter, transform=axes.transAxes, ha=across, va=along, size=KEY, weight="bold", color="white",
            path_effects=_OUTLINED,
        )  # fmt: skip
