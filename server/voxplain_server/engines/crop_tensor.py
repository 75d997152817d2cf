"""Crops of several perturbations stacked on axis 0, in the memory order that convolutions like."""

from __future__ import annotations

import torch
from torch import Tensor

_MEMORY = {4: torch.channels_last, 5: torch.channels_last_3d}


def empty(*shape: int, like: Tensor) -> Tensor:
    """A tensor whose elements are still to be written."""
    memory = _MEMORY.get(len(shape), torch.contiguous_format)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory)


def channels_last(tensor: Tensor) -> Tensor:
    """The tensor in that order, copied only where it is not."""
    return tensor.contiguous(memory_format=_MEMORY.get(tensor.ndim, torch.contiguous_format))


def by_case(tensor: Tensor, count: int) -> Tensor:
    """(count, rows, ...) of (count * rows, ...), without a copy."""
    return tensor.view(count, tensor.shape[0] // count, *tensor.shape[1:])
