"""The convolutions that read the volumes: their gradient has few channels, for which torch has no fast kernel.

A vector register holds 16 numbers; the gradient of 4 modalities fills a quarter of it, and the kernel computes the rest for
nothing. Here neighbouring voxels take the free places: a convolution with stride 2 along the last two axes gives the gradients
of 2 x 2 voxels at a time as 4 times as many channels, then they are put where they belong. The same products summed in
another order. Measured on the VGG-like net at 4 x 128^3: docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from voxplain_server.engines.memory_format import channels_last

MOST_CHANNELS = 8
"""From more channels on torch's own kernel is as fast."""
_EDGE = 2
_CONVOLVE: dict[int, Callable[..., Tensor]] = {2: functional.conv2d, 3: functional.conv3d}


def install_stems(twin: fx.GraphModule) -> dict[str, nn.Module]:
    """Give the convolutions that read an input of a twin a backward pass for few channels.

    Returns:
        Input -> its convolution, for every input that nothing else reads.
    """
    stems: dict[str, nn.Module] = {}
    for placeholder in twin.graph.nodes:
        if placeholder.op != "placeholder":
            continue
        for node in placeholder.users:
            module = twin.get_submodule(str(node.target)) if node.op == "call_module" else None
            if not isinstance(module, (nn.Conv2d, nn.Conv3d)):
                continue
            if len(placeholder.users) == 1:
                stems[placeholder.name] = module
            if _fits(module):
                module.forward = _Stem(module, module.forward)  # type: ignore[assignment]
    return stems


def _fits(module: nn.Conv2d | nn.Conv3d) -> bool:
    return (
        module.in_channels <= MOST_CHANNELS
        and module.groups == 1
        and set(module.stride) == set(module.dilation) == {1}
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and all(2 * pad == size - 1 for pad, size in zip(module.padding, module.kernel_size, strict=True))
    )


class _Stem:
    def __init__(self, module: nn.Conv2d | nn.Conv3d, plain: Callable[[Tensor], Tensor]) -> None:
        self._module = module
        self._plain = plain
        self._packed: Tensor | None = None

    def __call__(self, value: Tensor) -> Tensor:
        if not value.requires_grad or value.device.type != "cpu" or any(size % _EDGE for size in value.shape[-2:]):
            return self._plain(value)
        if self._packed is None:
            self._packed = channels_last(packed_weight(self._module.weight))
        return _FewChannels.apply(value, self._module, self._plain, self._packed)  # type: ignore[no-untyped-call, no-any-return]


@torch.no_grad()
def packed_weight(weight: Tensor) -> Tensor:
    """The kernel that gives the gradients of 2 x 2 voxels at once.

    Args:
        weight: (outputs, channels, *kernel) of a convolution.

    Returns:
        (channels * 4, outputs, *kernel + (0, 1, 1)).
    """
    rank = weight.ndim - 2
    turned = weight.flip(tuple(range(2, weight.ndim))).transpose(0, 1)
    size = [*weight.shape[2:-2], weight.shape[-2] + _EDGE - 1, weight.shape[-1] + _EDGE - 1]
    packed = weight.new_zeros((weight.shape[1], _EDGE, _EDGE, weight.shape[0], *size))
    for row in range(_EDGE):
        for column in range(_EDGE):
            place = (
                *(slice(None),) * (rank - 1),
                slice(row, row + weight.shape[-2]),
                slice(column, column + weight.shape[-1]),
            )
            packed[:, row, column][(slice(None), *place)] = turned
    return packed.flatten(0, 2)


class _FewChannels(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor, module: nn.Conv3d, plain: Callable[[Tensor], Tensor], packed: Tensor) -> Tensor:
        context.save_for_backward(packed)
        context.padding = module.padding
        return plain(value)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (packed,) = context.saved_tensors
        rank = gradient.ndim - 2
        stride = (*(1,) * (rank - 2), _EDGE, _EDGE)
        found = _CONVOLVE[rank](channels_last(gradient), packed, stride=stride, padding=context.padding)
        # (batch, channels, 2, 2, *spatial with the last two axes halved): back to neighbours.
        spread = found.unflatten(1, (-1, _EDGE, _EDGE))
        last = spread.ndim
        order = (0, 1, *range(4, last - 2), last - 2, 2, last - 1, 3)
        return spread.permute(order).reshape(gradient.shape[0], -1, *gradient.shape[2:]), None, None, None
