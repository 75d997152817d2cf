"""What one window dirties in the benchmark's network, convolution by convolution, from its layout alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tests.benchmarks import vgg_like

WINDOW, STRIDE = 11, 5


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution.

    Attributes:
        stage: counts from 0.
        size: voxels of its volume along an axis.
        start, stop: the box that it computes anew, along an axis.
        whole, dirty: GFLOP of a whole pass, and of that box.
    """

    stage: int
    size: int
    start: int
    stop: int
    whole: float
    dirty: float


def layers(start: int, edge: int = 128) -> Iterator[Layer]:
    """The convolutions, for a window that starts there along every axis."""
    stop, size, channels = min(start + WINDOW, edge), edge, len(vgg_like.MODALITIES)
    for stage, widths in enumerate(vgg_like.STAGES):
        for width in widths:
            start, stop = max(start - 1, 0), min(stop + 1, size)
            each = 2 * 27 * channels * width / 1e9
            yield Layer(stage, size, start, stop, each * size**3, each * (stop - start) ** 3)
            channels = width
        start, stop, size = start // 2, -(-stop // 2), size // 2


def mean_work(edge: int = 128) -> list[tuple[float, float]]:
    """GFLOP of a whole pass and of a window, for each stage; the mean over all windows of the grid.

    A window's box is a product of three axes, and the grid is one of three grids: so is the mean.
    """
    along = [list(layers(start, edge)) for start in range(0, edge - WINDOW + STRIDE, STRIDE)]
    found = [(0.0, 0.0)] * len(vgg_like.STAGES)
    for number, layer in enumerate(along[0]):
        mean_edge = float(np.mean([each[number].stop - each[number].start for each in along]))
        whole, dirty = found[layer.stage]
        found[layer.stage] = whole + layer.whole, dirty + layer.whole * (mean_edge / layer.size) ** 3
    return found
