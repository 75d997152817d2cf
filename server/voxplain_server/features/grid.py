"""A regular grid of boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxplain_server.features.feature_set import Labels


def grid_labels(shape: tuple[int, ...], edge_voxels: Sequence[int]) -> Labels:
    """Label the boxes of a regular grid, cut at the border.

    Args:
        shape: voxels along each axis.
        edge_voxels: edge of a box in voxels: one number for all axes, or one for each.

    Returns:
        (*shape) int32, labels 1 .. boxes in C order of the boxes. There is no background.
    """
    edges = tuple(edge_voxels) * len(shape) if len(edge_voxels) == 1 else tuple(edge_voxels)
    boxes = grid_boxes(shape, edges)
    labels = np.zeros(shape, dtype=np.int32)
    for axis, (n, edge) in enumerate(zip(shape, edges, strict=True)):
        place = np.arange(n, dtype=np.int32) // edge * int(np.prod(boxes[axis + 1 :]))
        labels += place.reshape(tuple(-1 if each == axis else 1 for each in range(len(shape))))
    labels += 1
    return labels


def grid_boxes(shape: tuple[int, ...], edge_voxels: Sequence[int]) -> tuple[int, ...]:
    """How many boxes there are along each axis."""
    edges = tuple(edge_voxels) * len(shape) if len(edge_voxels) == 1 else tuple(edge_voxels)
    return tuple(-(-n // edge) for n, edge in zip(shape, edges, strict=True))
