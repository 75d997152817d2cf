"""Draws docs/pictures/how-it-is-fast.png: `python -m tests.benchmarks.picture`. Every number in it is counted here."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch, Rectangle
from voxplain_client.pictures.page import Page, text_width

from tests.benchmarks.dirty_boxes import Layer, layers, mean_work
from tests.benchmarks.vgg_like import STAGES

OUT = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "how-it-is-fast.png"
WIDTH, HEIGHT = 1680, 1010
MARGIN = 60
INK, QUIET, FAINT = "#1d2733", "#6b7785", "#e9edf1"
CACHED, DIRTY, DEEP = "#c3ccd6", "#e4572e", "#a83210"
WINDOW_START = 45
EDGES = (220, 196, 174, 156, 142, 142)
"""Pixels of each stage's square: volumes halve, squares shrink less, or the last ones would be dots."""
STEPS = (
    ("analysis", "how far does each layer\ncarry a change?", "graph/locality.py"),
    ("plan", "which boxes go together,\nwhich need a whole pass?", "engines/incremental_plan.py"),
    ("gather", "cut the box and its border\nout of the kept activations", "engines/activation_cache.py"),
    ("compute", "the layer, on the\nstacked crops alone", "engines/crop_layers.py"),
    ("paste", "into the kept activations,\nwhere all of it is read", "engines/incremental_pass.py"),
)


def draw(out: Path = OUT) -> None:
    """Write the picture."""
    page = Page(width=WIDTH, height=HEIGHT)
    axes = page.panel(0, 0, width=WIDTH, height=HEIGHT)
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(HEIGHT, 0)
    page.write("One window, eleven convolutions: only what changes is computed", MARGIN, 36, size=21, color=INK, weight="bold")
    told = (
        "A window of 11³ voxels of a 128³ volume is replaced. Grey is known from the unperturbed case, orange is computed anew."
    )
    page.write(told, MARGIN, 84, size=12.5, color=QUIET)
    centres = _stages(page, axes, top=150)
    _bars(page, axes, centres, top=470)
    _steps(page, axes, top=816)
    page.save(out)


def _stages(page: Page, axes: Axes, top: float) -> list[float]:
    by_stage: list[list[Layer]] = [[] for _ in STAGES]
    for layer in layers(WINDOW_START):
        by_stage[layer.stage].append(layer)
    room = WIDTH - 2 * MARGIN - sum(EDGES)
    gap, left, floor = room / (len(EDGES) - 1), float(MARGIN), top + EDGES[0]
    centres = []
    for number, (edge, found) in enumerate(zip(EDGES, by_stage, strict=True)):
        high = floor - edge
        _square(axes, left, high, edge, found)
        last, centre = found[-1], left + edge / 2
        kind = "convolution" if len(found) == 1 else f"{len(found)} convolutions"
        page.write(f"{last.size}³ voxels, {STAGES[number][-1]} channels", centre, floor + 12, size=11.5, color=INK, ha="center")
        page.write(kind, centre, floor + 34, size=11, color=QUIET, ha="center")
        box = last.stop - last.start
        share = (box / last.size) ** 3
        told = f"box {box}³, {share:.1%}" if share < 0.995 else "all of it"
        page.write(told, centre, floor + 69, size=11.5, color=DEEP, weight="bold", ha="center", va="baseline")
        if number:
            middle = floor - EDGES[-1] / 2
            arrow = FancyArrowPatch(
                (left - gap + 10, middle), (left - 10, middle), arrowstyle="-|>", mutation_scale=13, color=QUIET, lw=1.3
            )
            axes.add_patch(arrow)
            page.write("pool", left - gap / 2, middle - 22, size=10, color=QUIET, ha="center")
        centres.append(centre)
        left += edge + gap
    return centres


def _square(axes: Axes, left: float, top: float, edge: float, found: list[Layer]) -> None:
    last = found[-1]
    voxel = edge / last.size
    axes.add_patch(Rectangle((left, top), edge, edge, facecolor=FAINT, edgecolor="none"))
    middle = (left + edge / 2, top + edge / 2)
    axes.add_patch(Ellipse(middle, 0.84 * edge, 0.96 * edge, facecolor=CACHED, edgecolor="none", alpha=0.75))
    if last.size <= 32:
        for line in range(1, last.size):
            at = line * voxel
            axes.plot([left + at] * 2, [top, top + edge], color="white", lw=0.7)
            axes.plot([left, left + edge], [top + at] * 2, color="white", lw=0.7)
    first = max(found[0].start - 1, 0), min(found[0].stop + 1, last.size)
    _box(axes, (left, top, voxel), first, facecolor="none", edgecolor=DIRTY, lw=1.3, linestyle=(0, (3, 2)), zorder=5)
    _box(axes, (left, top, voxel), (last.start, last.stop), facecolor=DIRTY, edgecolor="white", lw=0.8)
    axes.add_patch(Rectangle((left, top), edge, edge, facecolor="none", edgecolor=QUIET, lw=1, zorder=4))


def _box(axes: Axes, place: tuple[float, float, float], span: tuple[int, int], **style: object) -> None:
    left, top, voxel = place
    start, stop = span
    edge = (stop - start) * voxel
    axes.add_patch(Rectangle((left + start * voxel, top + start * voxel), edge, edge, **style))  # type: ignore[arg-type]


def _bars(page: Page, axes: Axes, centres: list[float], top: float) -> None:
    work = mean_work()
    whole, dirty = (sum(each[side] for each in work) for side in (0, 1))
    left = float(MARGIN)
    for text, ink in (
        ("Billions of operations: ", QUIET),
        ("a whole pass", INK),
        ("  and  ", QUIET),
        ("the mean window", DEEP),
    ):
        page.write(text, left, top + 18, size=13, color=ink, weight="bold", va="baseline")
        left += text_width(text, size=13, weight="bold") + 5
    tall, floor = 150.0, top + 222
    most = max(each for each, _ in work)
    for centre, (all_of_it, part) in zip(centres, work, strict=True):
        for offset, value, colour in ((-40, all_of_it, "#8593a3"), (10, part, DIRTY)):
            height = max(tall * value / most, 1.5)
            axes.add_patch(Rectangle((centre + offset, floor - height), 30, height, facecolor=colour, edgecolor="none"))
            text = f"{value:.1f}" if value >= 1 else f"{value:.2f}" if value >= 0.095 else f"{value:.3f}"
            ink = INK if offset < 0 else DEEP
            page.write(text, centre + offset + 15, floor - height - 5, size=10.5, color=ink, ha="center", va="bottom")
    axes.plot([MARGIN, WIDTH - MARGIN], [floor, floor], color=QUIET, lw=1)
    told = f"{whole:.1f} against {dirty:.2f}: {whole / dirty:.0f} times less, and the same answer up to the order of summation."
    page.write(told, MARGIN, floor + 16, size=14, color=INK, weight="bold")
    more = "A window that changes nothing (background under a zero fill) costs nothing: its effect is exactly zero."
    page.write(more, MARGIN, floor + 46, size=12, color=QUIET)


def _steps(page: Page, axes: Axes, top: float) -> None:
    gap, tall = 34, 140
    wide = (WIDTH - 2 * MARGIN - gap * (len(STEPS) - 1)) / len(STEPS)
    for number, (name, told, where) in enumerate(STEPS):
        left = MARGIN + number * (wide + gap)
        looped = 2 <= number <= 3
        shape = FancyBboxPatch(
            (left + 6, top + 6),
            wide - 12,
            tall - 12,
            boxstyle="round,pad=6,rounding_size=10",
            facecolor="#fdeee9" if looped else "#f4f6f8",
            edgecolor="none",
        )
        axes.add_patch(shape)
        page.write(f"{number + 1}  {name}", left + 18, top + 16, size=14, color=DEEP if looped else INK, weight="bold")
        page.write(told, left + 18, top + 48, size=11.5, color=INK)
        page.write(where, left + 18, top + 108, size=10, color=QUIET, family="monospace")
        if number:
            arrow = FancyArrowPatch(
                (left - gap + 4, top + tall / 2), (left - 4, top + tall / 2), arrowstyle="-|>", mutation_scale=14, color=QUIET
            )
            axes.add_patch(arrow)
    start, end = MARGIN + 2 * (wide + gap), MARGIN + 4 * (wide + gap) - gap
    axes.plot([start, start, end, end], [top + tall + 5, top + tall + 14, top + tall + 14, top + tall + 5], color=DIRTY, lw=1.2)
    page.write("for every layer", (start + end) / 2, top + tall + 19, size=10.5, color=DEEP, ha="center")


if __name__ == "__main__":
    draw()
