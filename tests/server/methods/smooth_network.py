"""A smooth network in float64 for parity with Captum: no kinks, so that figures agree to the last digits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from tests.fakes import Formula


class SmoothNetwork(torch.nn.Module):
    """Modalities are channels: (batch, modalities, *spatial) to (batch,)."""

    def __init__(self, modalities: int, *, rank: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        convolution = torch.nn.Conv3d if rank == 3 else torch.nn.Conv2d
        self.layers = torch.nn.Sequential(
            convolution(modalities, 4, 3, padding=1),
            torch.nn.Tanh(),
            convolution(4, 4, 3, stride=2, padding=1),
            torch.nn.Softplus(),
            torch.nn.Flatten(),
        ).double()
        self.tail = torch.nn.LazyLinear(1, dtype=torch.float64)

    def forward(self, cases: torch.Tensor) -> torch.Tensor:
        """(batch,)."""
        scores: torch.Tensor = self.tail(self.layers(cases)).squeeze(1)
        return scores


def network_input(volumes: Sequence[npt.NDArray[np.float32]]) -> torch.Tensor:
    """(1, modalities, *spatial) float64."""
    return torch.from_numpy(np.stack(volumes).astype(np.float64))[None]


def network_formula(network: torch.nn.Module) -> Formula:
    """The network as a formula of volumes."""

    def formula(volumes: Sequence[npt.NDArray[np.float32]]) -> float:
        with torch.no_grad():
            return float(network(network_input(volumes))[0])

    return formula
