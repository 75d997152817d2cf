"""Packed convolutions in a twin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from voxplain_server.engines.packed_convolution import PackedConvolution, is_packable, pack_module


def install_packed(twin: fx.GraphModule, *, only_forwards: bool = False) -> None:
    """Let the convolutions of a twin compute packed, forwards and for gradients of their operands backwards.

    Args:
        twin: changed in place.
        only_forwards: it is never differentiated, so convolutions whose gradient is none are packed too.
    """
    for module in twin.modules():
        if is_packable(module) and (only_forwards or _turns(module)):
            module.forward = _Differentiable(module)


def _turns(module: Any) -> bool:
    """Whether the gradient of its operand is a convolution too."""
    return set(module.stride) == {1} and module.groups == 1 and all(pad >= 0 for pad in _turned_padding(module))


def _turned_padding(module: Any) -> list[int]:
    return [
        spread * (width - 1) - pad
        for spread, width, pad in zip(module.dilation, module.kernel_size, module.padding, strict=True)
    ]


class _Differentiable:
    """What a convolution of the twin does; packed when it is first called, so that nothing is packed in vain."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._forward: PackedConvolution | None = None
        self._backward: PackedConvolution | None = None

    def __call__(self, value: Tensor) -> Tensor:
        if value.device.type != "cpu" or value.dtype != torch.float32:
            return self._module._conv_forward(value, self._module.weight, self._module.bias)  # type: ignore[no-any-return]
        if not (value.requires_grad and torch.is_grad_enabled()):
            return self.forward(value)
        return _Convolved.apply(value, self)  # type: ignore[no-untyped-call, no-any-return]

    def forward(self, value: Tensor) -> Tensor:
        if self._forward is None:
            self._forward = pack_module(self._module)
        made: Tensor = self._forward(value)
        return made

    def backward(self, gradient: Tensor) -> Tensor:
        if self._backward is None:
            module = self._module
            axes = tuple(range(2, module.weight.ndim))
            turned = module.weight.detach().flip(axes).transpose(0, 1).contiguous()
            options = {"stride": module.stride, "padding": _turned_padding(module), "dilation": module.dilation}
            self._backward = PackedConvolution(turned, None, **options)
        made: Tensor = self._backward(gradient)
        return made


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor, convolution: _Differentiable) -> Tensor:
        context.convolution = convolution
        return convolution.forward(value)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return context.convolution.backward(gradient), None
