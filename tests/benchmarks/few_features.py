"""A few features that both sides get: real supervoxels, and boxes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from voxplain_server.features.supervoxels import slic_labels

from tests.benchmarks.subject import Subject

KEPT = 2
Labels = npt.NDArray[np.int32]


def few_labels(subject: Subject, edge: int) -> list[Labels]:
    """For each modality two supervoxels of its own, numbered 1 and 2, and all else as 3: Captum evaluates every feature."""
    found: list[Labels] = []
    for number, volume in enumerate(subject.volumes(edge).values()):
        if number > 0:
            # SLIC takes seconds; its supervoxels of one modality are as good, moved by a little.
            found.append(np.ascontiguousarray(np.roll(found[0], 3 * number, axis=number % 3)))
            continue
        slic = slic_labels(volume, segments=50, compactness=0.1, sigma_voxels=2.0)
        chosen = np.linspace(1, int(slic.max()), KEPT + 2).astype(int)[1:-1]
        labels = np.full(slic.shape, KEPT + 1, np.int32)
        for place, name in enumerate(chosen):
            labels[slic == name] = place + 1
        found.append(labels)
    return found


def many_boxes(edge: int, count: int) -> Labels:
    """Slabs of equal thickness, numbered 1 .. count."""
    slab = 1 + (np.arange(edge) * count) // edge
    return np.broadcast_to(slab[:, None, None], (edge,) * 3).astype(np.int32)
