"""What a perturbation truly changes, in the coordinates of the model's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voxplain_server.engines.input_assembly import Place, places
from voxplain_server.features.region import Box, Region
from voxplain_server.models.case import Volumes
from voxplain_server.models.model import Model


@dataclass(frozen=True, slots=True, eq=False)
class InputChange:
    """The voxels of one region that take another value.

    Attributes:
        modality: index in Model.modalities.
        box: the smallest that holds them, in the volume's axes.
        indices: their flat C-order indices; None: the box is replaced as it is.
    """

    modality: int
    box: Box
    indices: npt.NDArray[np.int64] | None


def find_change(region: Region, source: Volumes, case: Volumes) -> InputChange | None:
    """What differs from the case inside a region; None where nothing does."""
    values, volume = source[region.modality], case[region.modality]
    if region.indices is not None:
        differs = values.reshape(-1)[region.indices] != volume.reshape(-1)[region.indices]
        if not differs.any():
            return None
        # Regions may hold most of a volume: what can be shared is not copied.
        indices = region.indices if differs.all() else region.indices[differs]
        axes = np.unravel_index(indices, volume.shape)
        return InputChange(region.modality, tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in axes), indices)
    differs = values[region.box] != volume[region.box]
    if not differs.any():
        return None
    box = []
    for axis, part in enumerate(region.box):
        others = tuple(other for other in range(differs.ndim) if other != axis)
        along = np.flatnonzero(differs.any(axis=others))
        box.append(slice(part.start + int(along[0]), part.start + int(along[-1]) + 1))
    return InputChange(region.modality, tuple(box), None)


class InputLayout:
    """Where the voxels of each modality lie in the model's inputs.

    Args:
        model: says how.
    """

    def __init__(self, model: Model) -> None:
        self.names = [spec.name for spec in model.inputs]
        self._places = places(model)

    def box(self, change: InputChange, shapes: Sequence[tuple[int, ...]]) -> tuple[int, list[int], list[int]]:
        """The input that a change lies in, and where its box starts and stops there; other axes are taken whole.

        Args:
            change: in the volume's axes.
            shapes: of the inputs.
        """
        place = self._places[change.modality]
        start, stop = [0] * len(shapes[place.input]), list(shapes[place.input])
        for axis, part in zip(_axes(place, len(change.box)), change.box, strict=True):
            start[axis], stop[axis] = part.start, part.stop
        return place.input, start, stop

    def write(
        self,
        crops: Sequence[Tensor | None],
        origins: Sequence[npt.NDArray[np.int64]],
        change: InputChange,
        source: Volumes,
    ) -> None:
        """Change the crops of one perturbation in place.

        Args:
            crops: of each input, laid out as it is; None where it is not changed.
            origins: (axes,) where each crop starts in its input.
            change: what changes.
            source: the values that it takes.
        """
        place = self._places[change.modality]
        tensor, values = crops[place.input], source[change.modality]
        if tensor is None:
            return
        on_host = tensor.device.type == "cpu"
        crop = tensor.numpy() if on_host else tensor
        origin = [int(origins[place.input][axis]) for axis in _axes(place, len(change.box))]
        for channel in place.channels:
            view = place.view(crop, row=0, channel=channel)
            if change.indices is None:
                moved = tuple(slice(part.start - at, part.stop - at) for part, at in zip(change.box, origin, strict=True))
                view[moved] = values[change.box] if on_host else _sent(values[change.box], tensor)
            else:
                where = np.unravel_index(change.indices, values.shape)
                moved_to = [axis - at for axis, at in zip(where, origin, strict=True)]
                taken = values.reshape(-1)[change.indices]
                if on_host:
                    view[tuple(moved_to)] = taken
                else:
                    view[tuple(_sent(axis, tensor, whole=True) for axis in moved_to)] = _sent(taken, tensor)


def _sent(array: npt.NDArray[Any], like: Tensor, *, whole: bool = False) -> Tensor:
    sent = torch.from_numpy(np.ascontiguousarray(array)).to(like.device)
    return sent if whole else sent.to(like.dtype)


def _axes(place: Place, rank: int) -> tuple[int, ...]:
    """The axis of the input along which each axis of the volume lies."""
    if place.slice_axis is None:
        return tuple(range(2, rank + 2))
    first = 0 if place.batch_is_slices else 1
    planes = iter(range(first + 2, first + 1 + rank))
    return tuple(first if axis == place.slice_axis else next(planes) for axis in range(rank))
