"""How the demo network learns: first close to the tumour, then on whole volumes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from examples.glioma_demo.dataset import Dataset
from examples.glioma_demo.grid import DEMO_GRID
from examples.glioma_demo.network import ShapeNet

_SHIFT_VOXELS = 2
_CROP_EDGE = 32
_CROP_SHIFT_VOXELS = 6
_BATCH = 16
_WEIGHT_DECAY = 1e-2
_CLUTTER_COST = 0.02


@dataclass(frozen=True, slots=True)
class Stage:
    """One cycle of training.

    Attributes:
        name: for the report.
        epochs: passes over the cases.
        learning_rate: the highest of the cycle.
        close_up: whether the network sees 32^3 voxels around the tumour, or the whole volume.
    """

    name: str
    epochs: int
    learning_rate: float
    close_up: bool


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to: its stage, its number from 1, mean cross-entropy and accuracy while training."""

    stage: str
    number: int
    loss: float
    accuracy: float


# On whole volumes alone, average pooling dilutes the tumour so much that the loss hardly moves for many epochs; a close-up
# costs a sixth and holds six times as much tumour.
STAGES = (
    Stage(name="close-up", epochs=12, learning_rate=1.5e-3, close_up=True),
    Stage(name="whole volume", epochs=4, learning_rate=1e-3, close_up=False),
)


def seed_everything(seed: int) -> None:
    """Make weights, shuffling and augmentation repeat for one seed, thread count and torch build."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)


def fit(network: ShapeNet, dataset: Dataset, *, seed: int, report: Callable[[Epoch], None]) -> None:
    """Train `network` in place with AdamW on mirrored and shifted cases.

    Cases come as the experiment draws them (FLAIR agrees in 70 %): nothing tells the network that FLAIR is the less
    reliable witness but its being wrong in 30 % of them. Two things are added. Heads without a tumour are to be answered
    with a half for each class, so that roundness needs evidence too and is not merely the absence of spikes; so are cases
    whose tumour every modality shows but T1c. And evidence that cancels out costs a little: without that, healthy tissue
    pulls both ways at once and maps fill with it.
    """
    draw = np.random.default_rng(seed)
    for stage in STAGES:
        if not stage.close_up:
            _undilute(network)
        steps = len(dataset.targets) // _BATCH
        optimiser = torch.optim.AdamW(network.parameters(), weight_decay=_WEIGHT_DECAY)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=stage.learning_rate, epochs=stage.epochs, steps_per_epoch=steps
        )
        for number in range(1, stage.epochs + 1):
            order = draw.permutation(len(dataset.targets))[: steps * _BATCH].reshape(steps, _BATCH)
            losses, hits, decided = 0.0, 0, 0
            for rows in order:
                targets = torch.from_numpy(dataset.targets[rows])
                images = _prepare(dataset, rows, draw=draw, close_up=stage.close_up)
                logits, loss = _step(network, images, targets, optimiser=optimiser)
                cycle.step()
                losses += loss
                answerable = targets[:, 0] != targets[:, 1]
                hits += int((logits.argmax(dim=1) == targets.argmax(dim=1))[answerable].sum())
                decided += int(answerable.sum())
            report(Epoch(stage=stage.name, number=number, loss=losses / steps, accuracy=hits / decided))


def _step(network: ShapeNet, images: Tensor, targets: Tensor, *, optimiser: torch.optim.Optimizer) -> tuple[Tensor, float]:
    """One step down the gradient; the logits and the loss before it."""
    network.train()
    activations = network.features(images)
    logits = network.judge(activations)
    clutter = network.weigh_evidence(activations).abs().mean()
    loss = functional.cross_entropy(logits, targets) + _CLUTTER_COST * clutter
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    optimiser.step()
    return logits.detach(), float(loss.detach())


def predict(network: nn.Module, dataset: Dataset) -> NDArray[np.float32]:
    """Logits of every case, (N, 2); puts `network` in eval mode."""
    network.eval()
    with torch.inference_mode():
        rows = np.arange(len(dataset.targets))
        parts = [
            network(normalise_batch(dataset, some, dataset.intensities[some])).numpy()
            for some in np.array_split(rows, max(1, len(rows) // _BATCH))
        ]
    return np.concatenate(parts)


def _prepare(dataset: Dataset, rows: NDArray[np.int64], *, draw: np.random.Generator, close_up: bool) -> Tensor:
    """A batch, each case mirrored left to right half the time and shifted, normalised by the whole volume's statistics."""
    views = []
    for row in rows:
        volumes = dataset.intensities[row]
        if close_up:
            shift = draw.integers(-_CROP_SHIFT_VOXELS, _CROP_SHIFT_VOXELS + 1, 3)
            low = np.clip(dataset.centres[row] + shift - _CROP_EDGE // 2, 0, np.array(DEMO_GRID.shape) - _CROP_EDGE)
            volumes = volumes[:, *(slice(start, start + _CROP_EDGE) for start in low)]
        else:
            # The grid's margin is empty, so nothing rolls over.
            volumes = np.roll(volumes, draw.integers(-_SHIFT_VOXELS, _SHIFT_VOXELS + 1, 3), axis=(1, 2, 3))
        views.append(volumes[:, ::-1] if draw.random() < 0.5 else volumes)
    return normalise_batch(dataset, rows, np.stack(views))


def normalise_batch(dataset: Dataset, rows: NDArray[np.int64], intensities: NDArray[np.int16]) -> Tensor:
    """(N, 4, X, Y, Z) with non-zero voxels shifted and scaled by their case's statistics, channels last for speed."""
    volumes = torch.from_numpy(intensities).float().contiguous(memory_format=torch.channels_last_3d)
    inside = volumes != 0
    means, deviations = (torch.from_numpy(kind[rows])[..., None, None, None] for kind in (dataset.means, dataset.deviations))
    return volumes.sub_(means).div_(deviations).mul_(inside)


def _undilute(network: ShapeNet) -> None:
    """Average pooling over a whole volume weakens what a close-up showed: strengthen the head by as much."""
    with torch.no_grad():
        network.head.weight.mul_(np.prod(DEMO_GRID.shape) / _CROP_EDGE**3)
