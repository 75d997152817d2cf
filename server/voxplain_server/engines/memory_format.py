"""Channels-last memory, on which convolutions of torch are up to three times faster."""

from __future__ import annotations

import torch
from torch import Tensor

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def channels_last(tensor: Tensor) -> Tensor:
    """The same numbers with the channels of a voxel side by side; anything but 4 or 5 axes as it is."""
    if tensor.ndim not in _CHANNELS_LAST:
        return tensor
    return tensor.contiguous(memory_format=_CHANNELS_LAST[tensor.ndim])
