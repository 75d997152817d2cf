"""The batch buffer on an accelerator: the case is sent once, then only the voxels that change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from voxplain_server.engines.input_assembly import assemble_tensors, places
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.features.region import Region
from voxplain_server.models.case import Case, Volumes


class DeviceBuffer:
    """Rows of model inputs in an accelerator's memory.

    Attributes:
        inputs: one contiguous tensor for each ONNX input, laid out as InputSpec says.
    """

    def __init__(self, case: Case, *, batch_size: int, dtypes: Sequence[torch.dtype], device: torch.device) -> None:
        self._case = case
        self._places = places(case.model)
        volumes = tuple(torch.tensor(volume, device=device).expand(batch_size, *volume.shape) for volume in case.volumes)
        inputs = assemble_tensors(case.model, volumes)
        self.inputs = tuple(tensor.to(dtype).contiguous() for tensor, dtype in zip(inputs, dtypes, strict=True))

    def write(self, row: int, perturbation: Perturbation) -> None:
        """Change one row that holds the unperturbed case."""
        self._copy(row, perturbation.regions, perturbation.source)

    def restore(self, row: int, perturbation: Perturbation) -> None:
        """Undo `write`, copying only what it changed."""
        self._copy(row, perturbation.regions, self._case.volumes)

    def _copy(self, row: int, regions: tuple[Region, ...], source: Volumes) -> None:
        for region in regions:
            place = self._places[region.modality]
            array = self.inputs[place.input]
            where, values = _part(region, source[region.modality])
            sent = torch.from_numpy(values).to(array.device, array.dtype)
            for channel in place.channels:
                place.view(array, row=row, channel=channel)[where] = sent


def _part(region: Region, volume: npt.NDArray[np.float32]) -> tuple[tuple[slice | torch.Tensor, ...], npt.NDArray[np.float32]]:
    if region.indices is None:
        return region.box, volume[region.box].copy()
    where = np.unravel_index(region.indices, volume.shape)
    return tuple(torch.from_numpy(axis.copy()) for axis in where), volume.reshape(-1)[region.indices]
