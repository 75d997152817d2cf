"""DeepLIFT's multipliers by the rescale rule, one case at a time, complete through max pooling.

DeepLIFT (Shrikumar, Greenside, Kundaje 2017, arXiv:1704.02685) replaces the derivative of every non-linearity by the slope
between reference and case, so that contributions of a layer's inputs sum to the difference of its output. With dx = x - r:

- y = s(x), voxel by voxel: m = ds / dx, the derivative s'(x) where |dx| < 1e-10.
- y = max over a window: the difference y(x) - y(r) is the contribution of one voxel, the argmax of x where y(x) >= y(r),
  else the argmax of r; its slope lies in [0, 1], because there dx is at least as large as the difference and has its sign.
  Windows that overlap add up. (Captum 0.9 means this rule, but its hooks lose it next to another non-linearity.)
- softmax: the mean Jacobian along the straight line from reference to case, by Gauss-Legendre quadrature, whose product with
  dx is the difference of the outputs; for functions of one variable this mean is the rescale rule.
- everything else: its derivative, which is complete for linear layers only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from voxplain_server.engines.memory_format import channels_last

SMALLEST_DIFFERENCE = 1e-10
"""Inputs closer than this to their reference take the derivative; as Captum."""
SOFTMAX_NODES = 32
_PIECE = 2**17
"""Elements that a cache holds several times."""

_VOXELWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.GELU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Softsign,
    nn.Hardswish,
    nn.Mish,
    nn.SiLU,
)
_MAX_POOLS: dict[type[nn.Module], Callable[..., tuple[Tensor, Tensor]]] = {
    nn.MaxPool1d: functional.max_pool1d_with_indices,
    nn.MaxPool2d: functional.max_pool2d_with_indices,
    nn.MaxPool3d: functional.max_pool3d_with_indices,
    nn.AdaptiveMaxPool1d: functional.adaptive_max_pool1d_with_indices,
    nn.AdaptiveMaxPool2d: functional.adaptive_max_pool2d_with_indices,
    nn.AdaptiveMaxPool3d: functional.adaptive_max_pool3d_with_indices,
}


class UnevenRows(Exception):
    """A layer that was to see one row sees several."""


def multipliers(
    scored: nn.Module,
    case: Sequence[Tensor],
    reference: Sequence[Tensor],
    *,
    rules: tuple[type[nn.Module], ...] = (*_VOXELWISE, *_MAX_POOLS, nn.Softmax),
    one_row: tuple[type[nn.Module], ...] = (),
) -> tuple[tuple[Tensor, ...], float, float]:
    """DeepLIFT's multipliers of every voxel; contributions are multiplier x (case - reference).

    Case and reference go through one after the other, so nets whose batch is fixed at 1 work, and the reference keeps the
    inputs of its non-linearities only until the case has passed them.

    Args:
        scored: from volumes (1, *spatial) to the score (1,); every non-linearity a module that is used once.
        case, reference: one volume for each modality.
        rules: layers that have a rule, of those above; all others pass their derivative.
        one_row: layers whose operand must have a batch of 1.

    Returns:
        Multipliers (1, *spatial) for each modality, the score of the case, the score of the reference.

    Raises:
        UnevenRows: a layer of `one_row` gets a longer batch.
    """
    inputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, arguments: tuple[Any, ...], _output: Tensor) -> None:
        inputs[module] = arguments[0].detach()

    def look(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if arguments[0].shape[0] != 1:
            raise UnevenRows

    def replace(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        return _replaced(module, arguments[0], inputs.pop(module), output.detach())

    with torch.no_grad(), _hooked(scored, rules, keep), _hooked(scored, one_row, look, before=True):
        reference_score = float(scored(*reference)[0])
    point = tuple(volume.detach().clone().requires_grad_() for volume in case)
    with torch.enable_grad(), _hooked(scored, rules, replace):
        score = scored(*point)[0]
        found = torch.autograd.grad(score, point)
    return found, float(score.detach()), reference_score


@contextmanager
def _hooked(
    scored: nn.Module, kinds: tuple[type[nn.Module], ...], hook: Callable[..., Any], *, before: bool = False
) -> Iterator[None]:
    found = [module for module in scored.modules() if isinstance(module, kinds)]
    hooks = [module.register_forward_pre_hook(hook) if before else module.register_forward_hook(hook) for module in found]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def _replaced(module: nn.Module, value: Tensor, reference: Tensor, output: Tensor) -> Tensor:
    if isinstance(module, nn.Softmax):
        return _PathAveraged.apply(value, reference, output, module)  # type: ignore[no-untyped-call, no-any-return]
    if isinstance(module, _VOXELWISE):
        return _Scaled.apply(value, output, _slopes(module, value.detach(), reference, output))  # type: ignore[no-untyped-call, no-any-return]
    where, share = _pooled(module, value.detach(), reference)
    return _Picked.apply(value, output, where, share)  # type: ignore[no-untyped-call, no-any-return]


@torch.no_grad()
def _slopes(module: nn.Module, value: Tensor, reference: Tensor, output: Tensor) -> Tensor:
    if type(module) is nn.ReLU and value.stride() == reference.stride() == output.stride() and _dense(value):
        return _relu_slopes(value, reference, output)
    difference = value - reference
    close = difference.abs() < SMALLEST_DIFFERENCE
    slopes: Tensor = (output - module.forward(reference)) / difference.masked_fill_(close, 1.0)
    if not bool(close.any()):
        return slopes
    with torch.enable_grad():
        leaf = value.detach().requires_grad_()
        (derivatives,) = torch.autograd.grad(module.forward(leaf).sum(), leaf)
    return torch.where(close, derivatives, slopes)


def _dense(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or channels_last(tensor) is tensor


def _relu_slopes(value: Tensor, reference: Tensor, output: Tensor) -> Tensor:
    """The same piece by piece in the order of the memory, so that what is computed in between stays in the cache."""
    slopes = torch.empty_like(value)
    lines = [torch.as_strided(tensor, (tensor.numel(),), (1,)) for tensor in (value, reference, output, slopes)]
    for at, before, after, found in zip(*(line.split(_PIECE) for line in lines), strict=True):
        difference = at - before
        close = difference.abs() < SMALLEST_DIFFERENCE
        torch.sub(after, before.relu(), out=found)
        found.div_(difference.masked_fill_(close, 1.0))
        torch.where(close, after.sign(), found, out=found)
    return slopes


@torch.no_grad()
def _pooled(module: nn.Module, value: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """For every window: the flat spatial index of the voxel that carries its difference, and that voxel's slope."""
    above, where_above = _pool(module, value)
    below, where_below = _pool(module, reference)
    rises = above >= below
    where = torch.where(rises, where_above, where_below)
    difference = (value - reference).flatten(2).gather(2, where.flatten(2)).view_as(where)
    close = difference.abs() < SMALLEST_DIFFERENCE
    return where, ((above - below) / difference.masked_fill(close, 1.0)).masked_fill(close, 1.0)


def _pool(module: nn.Module, value: Tensor) -> tuple[Tensor, Tensor]:
    pool = _MAX_POOLS[type(module)]
    if isinstance(module, (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)):
        return pool(value, module.output_size)
    options = {name: getattr(module, name) for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode")}
    return pool(value, **options)


class _Scaled(torch.autograd.Function):
    """Gives `output`; the gradient that comes back is multiplied by slopes."""

    @staticmethod
    def forward(context: Any, value: Tensor, output: Tensor, slopes: Tensor) -> Tensor:
        context.save_for_backward(slopes)
        return output

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = context.saved_tensors
        # Nobody asks twice, and a volume of its own less is held.
        return slopes.mul_(gradient), None, None


class _Picked(torch.autograd.Function):
    """Gives `output`; the gradient of each window goes to one voxel, times its slope."""

    @staticmethod
    def forward(context: Any, value: Tensor, output: Tensor, where: Tensor, share: Tensor) -> Tensor:
        context.save_for_backward(where, share)
        context.shape = value.shape
        return output

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        where, share = context.saved_tensors
        flat = gradient.new_zeros((*context.shape[:2], int(np.prod(context.shape[2:]))))
        flat.scatter_add_(2, where.flatten(2), (gradient * share).flatten(2))
        return flat.view(context.shape), None, None, None


class _PathAveraged(torch.autograd.Function):
    """Gives `output`; the gradient goes through the mean Jacobian of a softmax between reference and value."""

    @staticmethod
    def forward(context: Any, value: Tensor, reference: Tensor, output: Tensor, module: nn.Softmax) -> Tensor:
        context.save_for_backward(value, reference)
        context.axis = module.dim
        return output

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        value, reference = context.saved_tensors
        nodes, weights = np.polynomial.legendre.leggauss(SOFTMAX_NODES)
        mean = torch.zeros_like(gradient)
        for node, weight in zip((0.5 * (1.0 + nodes)).tolist(), (0.5 * weights).tolist(), strict=True):
            shares = torch.softmax(reference + node * (value - reference), dim=context.axis)
            mean.add_(shares * (gradient - (shares * gradient).sum(dim=context.axis, keepdim=True)), alpha=weight)
        return mean, None, None, None
