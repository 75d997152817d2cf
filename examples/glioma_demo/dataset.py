"""Many cases as one array, normalised as the bundle tells the server to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.glioma_demo.case import draw_shapes, show, show_unanswerable
from examples.glioma_demo.grid import DEMO_GRID
from examples.glioma_demo.scene import draw_scene
from examples.glioma_demo.synthesis import MODALITIES, Modality
from examples.glioma_demo.tumour import SHAPES

# Seeds never meet: cases to train on, to watch while choosing the network, to test on once it is chosen, to serve as
# background, and to ship.
TRAINING_SEEDS = range(1_000_000, 2_000_000)
VALIDATION_SEEDS = range(2_000_000, 2_500_000)
TEST_SEEDS = range(2_500_000, 3_000_000)
BACKGROUND_SEEDS = range(3_000_000, 4_000_000)
SHIPPED_SEEDS = range(4_000_000, 5_000_000)


@dataclass(frozen=True, slots=True)
class Dataset:
    """N cases.

    Attributes:
        intensities: (N, 4, X, Y, Z) int16, modalities in the order of `MODALITIES`. Whole numbers, so nothing is lost.
        targets: (N, 2) float32, the probability of each class that is right: 1 and 0, or a half each without one.
        centres: (N, 3) int64, the voxel in the middle of the tumour.
        means, deviations: (N, 4) float32, of each volume's non-zero voxels.
    """

    intensities: NDArray[np.int16]
    targets: NDArray[np.float32]
    centres: NDArray[np.int64]
    means: NDArray[np.float32]
    deviations: NDArray[np.float32]


def stack_volumes(volumes: Mapping[Modality, NDArray[np.float32]]) -> NDArray[np.float32]:
    """The volumes as one array of shape (4, X, Y, Z), in the order of `MODALITIES`."""
    return np.stack([volumes[modality] for modality in MODALITIES])


def normalise(volumes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shift and scale each modality's non-zero voxels to mean 0 and standard deviation 1; zero voxels stay 0.

    Args:
        volumes: (M, X, Y, Z), one volume per modality.
    """
    normalised = np.zeros_like(volumes)
    for source, target in zip(volumes, normalised, strict=True):
        inside = source != 0
        mean, deviation = measure(source)
        target[inside] = (source[inside] - mean) / deviation
    return normalised


def measure(volume: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and standard deviation of the non-zero voxels, in float64."""
    voxels = volume[volume != 0].astype(np.float64)
    return float(voxels.mean()), float(voxels.std())


def make_dataset(
    seeds: Sequence[int], *, unanswerable: Sequence[int] = (), report: Callable[[int], None] | None = None
) -> Dataset:
    """Make the case of every seed, then the cases that have no answer.

    Args:
        seeds: cases with a tumour; their target is their label.
        unanswerable: seeds of heads without one, in turn anywhere and on T1c alone; their target is a half for each class.
        report: told how many are done.
    """
    count = len(seeds) + len(unanswerable)
    dataset = Dataset(
        intensities=np.zeros((count, len(MODALITIES), *DEMO_GRID.shape), dtype=np.int16),
        targets=np.zeros((count, len(SHAPES)), dtype=np.float32),
        centres=np.zeros((count, 3), dtype=np.int64),
        means=np.zeros((count, len(MODALITIES)), dtype=np.float32),
        deviations=np.zeros((count, len(MODALITIES)), dtype=np.float32),
    )
    for row, seed in enumerate([*seeds, *unanswerable]):
        scene = draw_scene(seed)
        if row < len(seeds):
            case = show(scene, draw_shapes(seed))
            volumes = stack_volumes(case.volumes)
            dataset.targets[row, case.label] = 1.0
        else:
            volumes = stack_volumes(show_unanswerable(scene, everywhere=row % 2 == 0))
            dataset.targets[row] = 1.0 / len(SHAPES)
        dataset.intensities[row] = volumes
        dataset.centres[row] = np.rint(scene.centre_voxel)
        for channel, volume in enumerate(volumes):
            dataset.means[row, channel], dataset.deviations[row, channel] = measure(volume)
        if report is not None:
            report(row + 1)
    return dataset
