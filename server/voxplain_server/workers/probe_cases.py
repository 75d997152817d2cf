"""Random cases of the shapes that a model reads: what a bundle is tried on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from voxplain.volume import Geometry

from voxplain_server.models.case import Case
from voxplain_server.models.model import ModalitySpec, Model

PROBES = 2
PROBE_EDGES = (32, 64, 96, 16)
"""Voxels tried on axes of any size: networks with several poolings cannot read small ones."""
PROBE_SLICES = 4


def probe_cases(model: Model, edge: int) -> Iterator[Case]:
    """Random cases of the shape that the model reads; axes of any size get about `edge` voxels."""
    for seed in range(PROBES):
        draws = np.random.default_rng(seed)
        shapes = [probe_shape(model, modality, edge) for modality in model.modalities]
        volumes = tuple(draws.standard_normal(shape).astype(np.float32) for shape in shapes)
        yield Case(model=model, volumes=volumes, grids=tuple(Geometry(shape) for shape in shapes))


def probe_shape(model: Model, modality: ModalitySpec, edge: int) -> tuple[int, ...]:
    """Voxels of a probe along each axis."""
    slice_axis = next(spec.slice_axis for spec in model.inputs if modality.name in spec.modalities)
    multiples = modality.multiples or (1,) * len(modality.shape)
    free = [PROBE_SLICES if axis == slice_axis else edge for axis in range(len(modality.shape))]
    return tuple(
        fixed if fixed is not None else -(-size // multiple) * multiple
        for fixed, size, multiple in zip(modality.shape, free, multiples, strict=True)
    )
