"""One synthetic case: four co-registered modalities, a tumour, and the answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from examples.glioma_demo.grid import DEMO_GRID
from examples.glioma_demo.randomness import open_stream
from examples.glioma_demo.scene import Scene, draw_scene
from examples.glioma_demo.synthesis import MODALITIES, Modality, acquire
from examples.glioma_demo.tumour import SHAPES, Shape, other_shape

FLAIR_AGREEMENT = 0.7


@dataclass(frozen=True, slots=True)
class Case:
    """A synthetic case.

    Attributes:
        scene: the head and the tumour's place.
        volumes: float32 per modality on the demo grid, 0 outside the brain.
        tumours: bool per modality, where that modality shows its tumour.
        shapes: the tumour's shape per modality.
        affine: (4, 4), voxel indices to RAS+ mm.
    """

    scene: Scene
    volumes: Mapping[Modality, NDArray[np.float32]]
    tumours: Mapping[Modality, NDArray[np.bool_]]
    shapes: Mapping[Modality, Shape]
    affine: NDArray[np.float64]

    @property
    def seed(self) -> int:
        """What the case was drawn from."""
        return self.scene.seed

    @property
    def label(self) -> int:
        """The class: 0 round, 1 irregular. The shape on T1c decides it, always."""
        return SHAPES.index(self.shapes["t1c"])

    @property
    def flair_agrees(self) -> bool:
        """Whether FLAIR shows the shape that T1c shows."""
        return self.shapes["flair"] == self.shapes["t1c"]


def draw_shapes(seed: int) -> dict[Modality, Shape]:
    """Draw the shape on each modality: T1c either way alike, FLAIR as T1c in 70 % of the cases, T1 and T2 round.

    The design is the synthetic experiment of Jin et al., Medical Image Analysis 84 (2023) 102684.
    """
    draw = open_stream(seed, "shapes")
    t1c = SHAPES[int(draw.integers(2))]
    flair = t1c if draw.random() < FLAIR_AGREEMENT else other_shape(t1c)
    return {"t1": "round", "t1c": t1c, "t2": "round", "flair": flair}


def make_case(seed: int) -> Case:
    """Make the case of `seed`; the same seed gives the same voxels."""
    return show(draw_scene(seed), draw_shapes(seed))


def swap_shape(case: Case, modality: Literal["t1c", "flair"]) -> Case:
    """The same case with the tumour of one modality replaced by the other shape; nothing else changes."""
    swapped = dict(case.shapes)
    swapped[modality] = other_shape(case.shapes[modality])
    acquisition = acquire(case.scene, modality, swapped[modality])
    return Case(
        scene=case.scene,
        volumes={**case.volumes, modality: acquisition.volume},
        tumours={**case.tumours, modality: acquisition.tumour},
        shapes=swapped,
        affine=case.affine,
    )


def show(scene: Scene, shapes: Mapping[Modality, Shape]) -> Case:
    """All four modalities of `scene` with tumours of the given shapes."""
    seen = {modality: acquire(scene, modality, shapes[modality]) for modality in MODALITIES}
    return Case(
        scene=scene,
        volumes={modality: acquisition.volume for modality, acquisition in seen.items()},
        tumours={modality: acquisition.tumour for modality, acquisition in seen.items()},
        shapes=dict(shapes),
        affine=DEMO_GRID.affine,
    )


def show_unanswerable(scene: Scene, *, everywhere: bool) -> dict[Modality, NDArray[np.float32]]:
    """The volumes of `scene` without the answer: no tumour everywhere, or on T1c alone. Such a case has no label."""
    shapes: dict[Modality, Shape | None] = {**draw_shapes(scene.seed), "t1c": None}
    return {modality: acquire(scene, modality, None if everywhere else shapes[modality]).volume for modality in MODALITIES}
