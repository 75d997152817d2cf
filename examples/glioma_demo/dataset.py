"""Many cases as one array, normalised as the bundle tells the server to."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.glioma_demo.case import Case, make_case
from examples.glioma_demo.grid import DEMO_GRID
from examples.glioma_demo.synthesis import MODALITIES

# Seeds of cases that train, test, serve as background and are shipped never meet.
TRAINING_SEEDS = range(1_000_000, 2_000_000)
TEST_SEEDS = range(2_000_000, 3_000_000)
BACKGROUND_SEEDS = range(3_000_000, 4_000_000)
SHIPPED_SEEDS = range(4_000_000, 5_000_000)


@dataclass(frozen=True, slots=True)
class Dataset:
    """N cases.

    Attributes:
        intensities: (N, 4, X, Y, Z) int16, modalities in the order of `MODALITIES`. Whole numbers, so nothing is lost.
        labels: (N,) int64, 0 round, 1 irregular.
        centres: (N, 3) int64, the voxel in the middle of the tumour.
        means, deviations: (N, 4) float32, of each volume's non-zero voxels.
    """

    intensities: NDArray[np.int16]
    labels: NDArray[np.int64]
    centres: NDArray[np.int64]
    means: NDArray[np.float32]
    deviations: NDArray[np.float32]


def stack_volumes(case: Case) -> NDArray[np.float32]:
    """The case's volumes as one array of shape (4, X, Y, Z)."""
    return np.stack([case.volumes[modality] for modality in MODALITIES])


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


def make_dataset(seeds: Iterable[int], *, report: Callable[[int], None] | None = None) -> Dataset:
    """Make the case of every seed; `report` is told how many are done."""
    wanted = list(seeds)
    intensities = np.zeros((len(wanted), len(MODALITIES), *DEMO_GRID.shape), dtype=np.int16)
    labels = np.zeros(len(wanted), dtype=np.int64)
    centres = np.zeros((len(wanted), 3), dtype=np.int64)
    means, deviations = (np.zeros((len(wanted), len(MODALITIES)), dtype=np.float32) for _ in range(2))
    for row, seed in enumerate(wanted):
        case = make_case(seed)
        volumes = stack_volumes(case)
        intensities[row] = volumes
        labels[row] = case.label
        centres[row] = np.rint(case.scene.centre_voxel)
        for channel, volume in enumerate(volumes):
            means[row, channel], deviations[row, channel] = measure(volume)
        if report is not None:
            report(row + 1)
    return Dataset(intensities=intensities, labels=labels, centres=centres, means=means, deviations=deviations)
