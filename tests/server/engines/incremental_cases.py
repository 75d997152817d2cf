"""Models and cases around any ONNX file, and perturbations that meet borders and corners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from voxplain.volume import Geometry
from voxplain_server.engines.incremental_engine import IncrementalEvaluator
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.engines.torch_evaluator import TorchEvaluator
from voxplain_server.features.region import Region
from voxplain_server.graph.onnx_graph import Graph
from voxplain_server.graph.twin import build_twin
from voxplain_server.models.case import Case
from voxplain_server.models.model import Activation, InputSpec, ModalitySpec, Model, OutputKind, OutputSpec
from voxplain_server.models.score import Score


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """A graph, a case for it and a score, with two engines in float64: the exact one and the one under test."""

    graph: Graph
    model: Model
    case: Case
    score: Score
    dense: TorchEvaluator
    incremental: IncrementalEvaluator

    def exact(self, perturbations: Sequence[Perturbation]) -> np.ndarray:
        """Scores by whole passes."""
        return self.dense.scores(self.case, self.score, perturbations, batch_size=1, cancelled=lambda: False)

    def found(self, perturbations: Sequence[Perturbation]) -> np.ndarray:
        """Scores by the engine under test."""
        return self.incremental.scores(self.case, self.score, perturbations, batch_size=1, cancelled=lambda: False)

    def distance(self, perturbations: Sequence[Perturbation]) -> float:
        """The largest difference of the two, relative to the largest effect."""
        exact = self.exact(perturbations)
        base = self.exact([Perturbation(regions=(), source=self.case.volumes)])[0]
        return float(np.abs(self.found(perturbations) - exact).max() / np.abs(exact - base).max())


def setting(
    graph: Graph,
    specs: Sequence[InputSpec],
    shapes: Sequence[tuple[int, ...]],
    *,
    output_shape: tuple[int, ...],
    batched: bool = True,
    max_share: float = np.inf,
    dtype: torch.dtype = torch.float64,
    zeros: float = 0.0,
    change: Callable[[IncrementalEvaluator], None] | None = None,
) -> Setting:
    """A setting for `graph`.

    Args:
        graph: its output gives classes, or classes in space.
        specs: its inputs.
        shapes: of one volume of each input.
        output_shape: of the graph's output.
        batched: whether several cases go through together.
        max_share: of the engine under test.
        dtype: of both engines.
        zeros: share of the voxels that are zero.
        change: what is done to the engine under test before it is used.
    """
    draws = np.random.default_rng(5)
    names, volumes, modalities = [], [], []
    for spec, shape in zip(specs, shapes, strict=True):
        for order, name in enumerate(spec.modalities):
            volume = draws.standard_normal(shape).astype(np.float32)
            volume[draws.random(shape) < zeros] = 0
            names.append(name)
            volumes.append(volume)
            modalities.append(ModalitySpec(name=name, input_name=spec.name, channel=order, shape=shape))
    space = output_shape[2:]
    output = OutputSpec(
        name=graph.outputs[0],
        score_name=graph.outputs[0],
        kind=OutputKind.SEGMENTATION if space else OutputKind.CLASSES,
        activation=Activation.NONE,
        classes=tuple(f"class {number}" for number in range(output_shape[1])),
    )
    model = Model(
        name="any",
        version="1",
        folder=Path(),
        onnx_path=Path(),
        digest="",
        metadata_digest="",
        description="",
        modalities=tuple(modalities),
        inputs=tuple(specs),
        output=output,
        batched=batched,
    )
    grids = tuple(Geometry(shape=volume.shape, affine=np.eye(4)) for volume in volumes)
    region = draws.random(space) < 0.5 if space else None
    score = Score(output=output, weights=((0, 1.0), (1, -0.5)), region=region)
    dense = TorchEvaluator(build_twin(graph, dtype=dtype), model, dtype=dtype)
    incremental = IncrementalEvaluator(graph, model, dense, dtype=dtype, max_share=max_share)
    if change is not None:
        change(incremental)
    return Setting(graph, model, Case(model=model, volumes=tuple(volumes), grids=grids), score, dense, incremental)


def noise(case: Case, *, seed: int = 9) -> tuple[np.ndarray, ...]:
    """Volumes to take values from."""
    draws = np.random.default_rng(seed)
    return tuple(draws.standard_normal(volume.shape).astype(np.float32) for volume in case.volumes)


def window(case: Case, modality: int, start: Sequence[int], edge: Sequence[int]) -> Region:
    """A box, cut to the volume."""
    shape = case.volumes[modality].shape
    return Region(modality, tuple(slice(a, min(a + e, n)) for a, e, n in zip(start, edge, shape, strict=True)))


def scattered(case: Case, modality: int, count: int, *, seed: int) -> Region:
    """Voxels in a ball-like crowd, by their indices."""
    shape = case.volumes[modality].shape
    draws = np.random.default_rng(seed)
    centre = [draws.integers(0, n) for n in shape]
    places = [
        np.clip(np.rint(draws.normal(at, 1.5, count)).astype(np.int64), 0, n - 1) for at, n in zip(centre, shape, strict=True)
    ]
    indices = np.unique(np.ravel_multi_index(places, shape))
    axes = np.unravel_index(indices, shape)
    return Region(modality, tuple(slice(int(a.min()), int(a.max()) + 1) for a in axes), indices)


def many(case: Case, *, seed: int = 1) -> list[Perturbation]:
    """Corners, borders, single voxels, crowds, two modalities together, whole volumes, and what changes nothing."""
    source, draws = noise(case), np.random.default_rng(seed)
    regions: list[tuple[Region, ...]] = []
    for modality, volume in enumerate(case.volumes):
        shape, rank = volume.shape, volume.ndim
        regions += [
            (window(case, modality, [0] * rank, [3] * rank),),
            (window(case, modality, [n - 2 for n in shape], [3] * rank),),
            (window(case, modality, [n // 2 for n in shape], [1] * rank),),
            (window(case, modality, [n // 3 for n in shape], [4, *[2] * (rank - 1)]),),
            (window(case, modality, [0] * rank, shape),),
            (scattered(case, modality, 12, seed=seed + modality),),
        ]
        for _ in range(4):
            start = [int(draws.integers(0, n)) for n in shape]
            regions.append((window(case, modality, start, [int(draws.integers(1, 5)) for _ in shape]),))
    last = len(case.volumes) - 1
    regions.append((scattered(case, 0, 8, seed=31), scattered(case, last, 8, seed=32)))
    regions.append(())
    made = [Perturbation(regions=each, source=source) for each in regions]
    made.append(Perturbation(regions=regions[0], source=case.volumes))
    return made
