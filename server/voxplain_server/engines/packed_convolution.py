"""Convolutions whose weights stand as oneDNN reads them: torch brings them into that order anew for every call.

On small crops and on deep layers of one case the ordering takes as long as the convolution: for 128 to 128 channels over 4^3
outputs one core does 38 GFLOP/s as torch goes about it, and 101 packed. Equal up to the order of summation. torch has no public
name for this; it is what its own compiler does on processors. Where it is not to be had, or does not answer right, convolutions
stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxplain_server.engines.memory_format import channels_last

_HINT = 16
"""Edge of the operand that the order is chosen for. Always the same: the order decides how sums are rounded."""
_CLOSE = 1e-4
_PLAIN: dict[int, Callable[..., Tensor]] = {2: functional.conv2d, 3: functional.conv3d}


class PackedConvolution(nn.Module):
    """A convolution over two or three spatial axes, float32, on the processor.

    Args:
        weight: (outputs, inputs / groups, *kernel).
        bias: (outputs,), or None.
        stride, padding, dilation: for each spatial axis.
        groups: as in torch.
        relu: whether what it makes is cut off at zero.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int = 1,
        relu: bool = False,
    ) -> None:
        super().__init__()
        rank = weight.ndim - 2
        self._bias = bias
        self._options = (list(padding), list(stride), list(dilation), groups)
        self._after = "relu" if relu else "none"
        library: Any = torch._C._nn
        order = library.mkldnn_reorder_conv2d_weight if rank == 2 else library.mkldnn_reorder_conv3d_weight
        hint = [1, weight.shape[1] * groups, *(_HINT,) * rank]
        with torch.no_grad():
            self._weight = order(weight.detach().to_mkldnn(), *self._options, hint)

    def forward(self, value: Tensor) -> Tensor:
        """(batch, inputs, *spatial) -> (batch, outputs, *spatial); no gradient flows."""
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(
            channels_last(value), self._weight, self._bias, *self._options, self._after, [], ""
        )
        return made


def can_pack(weight: Tensor) -> bool:
    """Whether a weight, (outputs, inputs / groups, *kernel), is of the kind that can be packed here."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.ndim in (4, 5) and _answers_right()


def is_packable(module: nn.Module) -> bool:
    """Whether a module of the twin is a convolution that PackedConvolution can stand for."""
    return (
        type(module) in (nn.Conv2d, nn.Conv3d)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and isinstance(module.weight, Tensor)
        and can_pack(module.weight)
    )


def pack_module(module: nn.Module, *, relu: bool = False) -> PackedConvolution:
    """Pack a convolution for which `is_packable` holds."""
    conv: Any = module
    return PackedConvolution(
        conv.weight,
        conv.bias,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        relu=relu,
    )


@cache
def _answers_right() -> bool:
    """Whether this build of torch has what it takes, and it computes convolutions."""
    try:
        with torch.inference_mode():
            return all(_agrees(rank, groups) for rank in _PLAIN for groups in (1, 2))
    except (AttributeError, RuntimeError, TypeError):
        return False


def _agrees(rank: int, groups: int) -> bool:
    drawn = torch.Generator().manual_seed(0)
    value = channels_last(torch.randn(2, 4, *(7,) * rank, generator=drawn))
    weight = torch.randn(6, 4 // groups, *(3,) * rank, generator=drawn)
    bias = torch.randn(6, generator=drawn)
    stride, padding, dilation = (1, 2, 1)[:rank], (1, 0, 2)[:rank], (1, 2, 1)[:rank]
    packed = PackedConvolution(weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups, relu=True)
    plain = _PLAIN[rank](value, weight, bias, stride, padding, dilation, groups).relu()
    return packed(value).shape == plain.shape and bool((packed(value) - plain).abs().max() <= _CLOSE * plain.abs().max())
