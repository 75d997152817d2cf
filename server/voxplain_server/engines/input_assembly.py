"""How the volumes of a case lie in a model's inputs, as InputSpec describes it.

One modality lies in one or several channels (`repeat`) of one input. Without a slice axis an input is
(batch, channels, *spatial); with one (batch, slices, channels, *plane); where the slices use up the batch axis
(slices, channels, *plane), for one case only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from voxplain_server.models.model import InputSpec, Model

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Place:
    """Where one modality lies.

    Attributes:
        input: index in Model.inputs.
        channels: the channels of that input which hold a copy of it.
        slice_axis: axis of the volume that is the slice axis of the input; None: there is none.
        batch_is_slices: whether axis 0 of the input is the slice axis.
    """

    input: int
    channels: range
    slice_axis: int | None
    batch_is_slices: bool

    def view(self, array: Any, *, row: int, channel: int) -> Any:
        """The voxels (*spatial) of one copy in one row: a view of a numpy array or torch tensor, not always contiguous."""
        if self.slice_axis is None:
            return array[row, channel]
        stack = array[:, channel] if self.batch_is_slices else array[row][:, channel]
        return np.moveaxis(stack, 0, self.slice_axis) if isinstance(stack, np.ndarray) else stack.movedim(0, self.slice_axis)


def places(model: Model) -> tuple[Place, ...]:
    """Where each modality lies, in the order of Model.modalities."""
    found: dict[str, Place] = {}
    for number, spec in enumerate(model.inputs):
        for order, name in enumerate(spec.modalities):
            channels = range(order * spec.repeat, (order + 1) * spec.repeat)
            found[name] = Place(number, channels, spec.slice_axis, spec.batch_is_slices)
    return tuple(found[name] for name in model.modality_names)


def assemble(
    model: Model, volumes: Sequence[npt.NDArray[np.floating[Any]]], *, batch: int, dtypes: Sequence[npt.DTypeLike] | None = None
) -> tuple[npt.NDArray[Any], ...]:
    """Lay out one case `batch` times.

    Args:
        model: says how.
        volumes: (*spatial) for each modality.
        batch: rows; 1 where the slices use up the batch axis.
        dtypes: element type of each input; None: as InputSpec says.

    Returns:
        One C-contiguous array for each input, in the order of Model.inputs.

    Raises:
        ValueError: several rows are asked of a model whose slices use up the batch axis.
    """
    kinds = [spec.dtype for spec in model.inputs] if dtypes is None else dtypes
    by_name = dict(zip(model.modality_names, volumes, strict=True))
    arrays = tuple(
        np.empty(_shape(spec, by_name[spec.modalities[0]].shape, batch), dtype=kind)
        for spec, kind in zip(model.inputs, kinds, strict=True)
    )
    for place, volume in zip(places(model), volumes, strict=True):
        for row in range(batch):
            for channel in place.channels:
                place.view(arrays[place.input], row=row, channel=channel)[...] = volume
    return arrays


def assemble_tensors(model: Model, volumes: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Lay out a batch of cases so that gradients flow back to the volumes.

    Args:
        model: says how.
        volumes: (batch, *spatial) for each modality.

    Returns:
        One tensor for each input, in the order of Model.inputs.

    Raises:
        ValueError: several cases for a model whose slices use up the batch axis.
    """
    import torch

    by_name = dict(zip(model.modality_names, volumes, strict=True))
    inputs = []
    for spec in model.inputs:
        channels = [by_name[name] for name in spec.modalities for _ in range(spec.repeat)]
        _shape(spec, tuple(channels[0].shape[1:]), channels[0].shape[0])
        if spec.slice_axis is not None:
            channels = [channel.movedim(1 + spec.slice_axis, 1) for channel in channels]
        stacked = torch.stack(channels, dim=1 if spec.slice_axis is None else 2)
        inputs.append(stacked[0] if spec.batch_is_slices else stacked)
    return tuple(inputs)


def _shape(spec: InputSpec, spatial: tuple[int, ...], batch: int) -> tuple[int, ...]:
    channels = len(spec.modalities) * spec.repeat
    if spec.slice_axis is None:
        return (batch, channels, *spatial)
    plane = tuple(size for axis, size in enumerate(spatial) if axis != spec.slice_axis)
    if not spec.batch_is_slices:
        return (batch, spatial[spec.slice_axis], channels, *plane)
    if batch != 1:
        raise ValueError("slices use up the batch axis of this model: one case at a time")
    return (spatial[spec.slice_axis], channels, *plane)
