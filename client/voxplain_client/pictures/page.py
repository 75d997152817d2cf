"""A page laid out in pixels from its upper left corner, so that nothing overlaps by chance."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text

DOTS_PER_INCH = 100
PIXELS_PER_POINT = DOTS_PER_INCH / 72
LINE_HEIGHT = 1.35
"""Distance of two lines in units of the font's size."""


class Page:
    """A figure with pixel coordinates.

    Args:
        width, height: pixels.
    """

    def __init__(self, *, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, facecolor="white")
        self._canvas = FigureCanvasAgg(self.figure)

    def panel(self, left: float, top: float, *, width: float, height: float) -> Axes:
        """Axes that fill a box exactly, without ticks and frame."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def write(self, text: str, left: float, top: float, *, size: float, **style: Any) -> Text:
        """Text whose upper left corner lies there. A `$` is a `$`."""
        place: dict[str, Any] = {"ha": "left", "va": "top", "linespacing": 1.2} | style
        return self.figure.text(left / self.width, 1 - top / self.height, text, size=size, parse_math=False, **place)

    def save(self, path: Path) -> None:
        """Write a PNG. No software name or date goes into it, so that equal pictures are equal files."""
        self._canvas.print_figure(path, format="png", metadata={"Software": None}, facecolor="white")


@lru_cache(maxsize=4096)
def text_width(text: str, *, size: float, weight: str = "normal") -> float:
    """Width of a line in pixels."""
    renderer: Any = RendererAgg(1, 1, DOTS_PER_INCH)  # type: ignore[no-untyped-call]
    width, _, _ = renderer.get_text_width_height_descent(text, FontProperties(size=size, weight=weight), False)
    return float(width)


def wrap_text(text: str, *, width: float, size: float, weight: str = "normal") -> list[str]:
    """Lines that fit into a width in pixels; a word that is too long is cut."""
    # Words are measured once each; kerning across a space is far below the pixel kept free here.
    space = text_width("i i", size=size, weight=weight) - 2 * text_width("i", size=size, weight=weight)
    lines: list[list[str]] = []
    filled = 0.0
    for word in _words(text, width=width, size=size, weight=weight):
        wide = text_width(word, size=size, weight=weight)
        if lines and filled + space + wide <= width - 1.0:
            lines[-1].append(word)
            filled += space + wide
        else:
            lines.append([word])
            filled = wide
    return [" ".join(line) for line in lines]


def text_height(lines: int, *, size: float) -> float:
    """Height of so many lines in pixels."""
    return lines * size * PIXELS_PER_POINT * LINE_HEIGHT


def _words(text: str, *, width: float, size: float, weight: str) -> list[str]:
    words: list[str] = []
    for word in text.split():
        rest = word
        while text_width(rest, size=size, weight=weight) > width and len(rest) > 1:
            fits = max(1, int(len(rest) * width / text_width(rest, size=size, weight=weight)) - 1)
            # Keys are cut at a hyphen where one is near.
            hyphen = rest.rfind("-", fits // 2, fits)
            fits = hyphen + 1 if hyphen > 0 else fits
            words.append(rest[:fits])
            rest = rest[fits:]
        words.append(rest)
    return words
