"""Means over samples whose number needs no memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from voxplain_server.engines.batched_scores import ask
from voxplain_server.engines.engine import Cancelled
from voxplain_server.methods.estimate import Maps
from voxplain_server.methods.input_gradients import as_maps
from voxplain_server.methods.standard_error import relative_standard_error

if TYPE_CHECKING:
    import torch


class RunningMean:
    """Mean and standard error of volumes, sample by sample, in float64 (Welford 1962)."""

    def __init__(self) -> None:
        self.samples = 0
        self._means: list[torch.Tensor] = []
        self._squares: list[torch.Tensor] = []

    def add(self, volumes: Sequence[torch.Tensor]) -> None:
        """Take one more sample: (1, *spatial) for each modality."""
        import torch

        self.samples += 1
        if self.samples == 1:
            self._means = [volume.detach().to(torch.float64, copy=True) for volume in volumes]
            self._squares = [torch.zeros_like(mean) for mean in self._means]
            return
        for volume, mean, square in zip(volumes, self._means, self._squares, strict=True):
            difference = volume.detach().double() - mean
            mean.add_(difference, alpha=1.0 / self.samples)
            # (x - old mean) (x - new mean) = (x - old mean)^2 (n - 1) / n
            square.add_(difference.square_(), alpha=(self.samples - 1) / self.samples)

    def stops(self, cancelled: Cancelled) -> bool:
        """Whether to stop with the samples so far; asked before each sample.

        Raises:
            voxplain.errors.Cancelled: `cancelled()` became true before the first sample.
        """
        if self.samples == 0:
            ask(cancelled)
            return False
        return cancelled()

    def means(self) -> Maps:
        """(*spatial) for each modality."""
        return as_maps(self._means)

    def standard_errors(self) -> Maps | None:
        """Standard errors of the means, (*spatial) for each modality; None for fewer than two samples."""
        if self.samples < 2:
            return None
        return as_maps([(square / (self.samples - 1)).sqrt() / math.sqrt(self.samples) for square in self._squares])

    def relative_standard_error(self) -> float | None:
        """Root mean square of the standard errors over all voxels divided by the largest absolute mean."""
        errors = self.standard_errors()
        if errors is None:
            return None
        return relative_standard_error(_joined(self.means()), _joined(errors))


def _joined(maps: Maps) -> npt.NDArray[np.float64]:
    return np.concatenate([values.ravel() for values in maps])
