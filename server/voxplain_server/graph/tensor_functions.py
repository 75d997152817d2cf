"""ONNX operators without weights, as functions of torch tensors.

Integers that steer a function (axes, sizes, pads) come as lists where the file holds them, and as tensors where the graph
computes them from a dynamic axis. Such tensors stay on the CPU, wherever the twin computes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

Integers = Tensor | Sequence[int]


def integers(values: Integers) -> list[int]:
    """Plain integers, wherever they come from."""
    return [int(item) for item in (values.reshape(-1).tolist() if isinstance(values, Tensor) else values)]


def literal(elements: Sequence[int] | Sequence[bool], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A small constant of whole numbers or truth values, made anew on the CPU."""
    return torch.tensor(elements, dtype=dtype).reshape(tuple(shape))


def on_one_device(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Bring constants made on the CPU to where the others are."""
    target = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), None)
    return list(tensors) if target is None else [tensor.to(target) for tensor in tensors]


def elementwise(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operator on broadcast operands; more than two are taken from left to right."""

    def apply(*operands: Tensor) -> Tensor:
        first, *others = on_one_device(operands)
        for other in others:
            first = function(first, other)
        return first

    apply.__name__ = apply.__qualname__ = f"apply_{function.__name__}"
    return apply


def divide(dividend: Tensor, divisor: Tensor) -> Tensor:
    """ONNX Div: whole numbers are divided towards zero."""
    whole = not dividend.is_floating_point() and not divisor.is_floating_point()
    return torch.div(dividend, divisor, rounding_mode="trunc" if whole else None)


def power(base: Tensor, exponent: Tensor) -> Tensor:
    """ONNX Pow: the result has the type of the base."""
    return torch.pow(base, exponent).to(base.dtype)


def modulo(dividend: Tensor, divisor: Tensor) -> Tensor:
    """ONNX Mod without fmod: the sign is the divisor's."""
    return torch.remainder(dividend, divisor)


def mean_of(*operands: Tensor) -> Tensor:
    """ONNX Mean: of the operands, element by element."""
    return elementwise(torch.add)(*operands) / len(operands)


def select(condition: Tensor, chosen: Tensor, other: Tensor) -> Tensor:
    """ONNX Where."""
    condition, chosen, other = on_one_device((condition, chosen, other))
    return torch.where(condition, chosen, other)


def clip(value: Tensor, low: Tensor | float | None, high: Tensor | float | None) -> Tensor:
    """ONNX Clip with absent, constant or computed bounds."""
    if isinstance(low, Tensor):
        value = torch.maximum(*on_one_device((value, low)))
    elif low is not None:
        value = torch.clamp(value, min=low)
    if isinstance(high, Tensor):
        return torch.minimum(*on_one_device((value, high)))
    return value if high is None else torch.clamp(value, max=high)


def shape_of(value: Tensor, start: int, end: int | None) -> Tensor:
    """ONNX Shape, on the CPU."""
    return torch.tensor(tuple(value.shape)[start:end], dtype=torch.int64)


def size_of(value: Tensor) -> Tensor:
    """ONNX Size, on the CPU."""
    return torch.tensor(value.numel(), dtype=torch.int64)


def reshape(value: Tensor, shape: Integers, allow_zero: bool) -> Tensor:
    """ONNX Reshape: 0 keeps the size of that axis unless `allow_zero`, -1 is what remains."""
    sizes = integers(shape)
    if not allow_zero:
        sizes = [value.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return value.reshape(sizes)


def flatten(value: Tensor, axis: int) -> Tensor:
    """ONNX Flatten: to two axes, cut before `axis`."""
    cut = axis % value.ndim if axis < 0 else axis
    rows = 1
    for size in value.shape[:cut]:
        rows *= size
    return value.reshape(rows, -1)


def squeeze(value: Tensor, axes: Integers | None) -> Tensor:
    """ONNX Squeeze."""
    return value.squeeze() if axes is None else value.squeeze(tuple(integers(axes)))


def unsqueeze(value: Tensor, axes: Integers) -> Tensor:
    """ONNX Unsqueeze: the axes count in the result."""
    places = integers(axes)
    rank = value.ndim + len(places)
    for place in sorted(place % rank for place in places):
        value = value.unsqueeze(place)
    return value


def transpose(value: Tensor, order: Sequence[int] | None) -> Tensor:
    """ONNX Transpose: without an order, the axes are reversed."""
    return value.permute(tuple(reversed(range(value.ndim))) if order is None else tuple(order))


def concatenate(values: Sequence[Tensor], axis: int) -> Tensor:
    """ONNX Concat."""
    return torch.cat(on_one_device(values), dim=axis)


def split(value: Tensor, sizes: Integers | None, parts: int, axis: int) -> tuple[Tensor, ...]:
    """ONNX Split: into the given sizes, or into `parts` equal ones of which the last may be smaller."""
    if sizes is not None:
        return torch.split(value, integers(sizes), dim=axis)
    return torch.split(value, -(-value.shape[axis] // parts), dim=axis)


def cut(value: Tensor, starts: Integers, ends: Integers, axes: Integers | None, steps: Integers | None) -> Tensor:
    """ONNX Slice: ends beyond the axis are cut, negative steps run backwards."""
    begins, stops = integers(starts), integers(ends)
    places = list(range(len(begins))) if axes is None else integers(axes)
    strides = [1] * len(begins) if steps is None else integers(steps)
    index: list[slice] = [slice(None)] * value.ndim
    backwards = []
    for begin, stop, place, stride in zip(begins, stops, places, strides, strict=True):
        place %= value.ndim
        size = value.shape[place]
        if stride < 0:
            stop = -1 if stop < -size else stop + size if stop < 0 else min(stop, size)
            picked = range(size)[slice(begin, None if stop < 0 else stop, stride)]
            begin, stop, stride = (picked[-1], picked[0] + 1, -stride) if len(picked) else (0, 0, 1)
            backwards.append(place)
        index[place] = slice(begin, stop, stride)
    value = value[tuple(index)]
    return value.flip(backwards) if backwards else value


def gather(value: Tensor, indices: Tensor, axis: int) -> Tensor:
    """ONNX Gather: negative indices count from the end."""
    axis %= value.ndim
    places = indices.to(value.device, torch.int64)
    places = torch.where(places < 0, places + value.shape[axis], places)
    picked = value.index_select(axis, places.reshape(-1))
    return picked.reshape(value.shape[:axis] + places.shape + value.shape[axis + 1 :])


def gather_elements(value: Tensor, indices: Tensor, axis: int) -> Tensor:
    """ONNX GatherElements."""
    places = indices.to(value.device)
    return value.gather(axis, torch.where(places < 0, places + value.shape[axis], places))


def expand(value: Tensor, shape: Integers) -> Tensor:
    """ONNX Expand: broadcasting in both directions."""
    sizes = integers(shape)
    own = [1] * (len(sizes) - value.ndim) + list(value.shape)
    asked = [1] * (value.ndim - len(sizes)) + sizes
    return value.expand([size if wanted == 1 else wanted for size, wanted in zip(own, asked, strict=True)])


def tile(value: Tensor, repeats: Integers) -> Tensor:
    """ONNX Tile."""
    return value.repeat(integers(repeats))


def filled(shape: Integers, value: float, dtype: torch.dtype) -> Tensor:
    """ONNX ConstantOfShape."""
    return torch.full(integers(shape), value, dtype=dtype)


def counted(start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    """ONNX Range."""
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype, device=start.device)


def cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    """ONNX Cast."""
    return value.to(dtype)


def argmax(value: Tensor, axis: int, keep: bool) -> Tensor:
    """ONNX ArgMax."""
    return value.argmax(dim=axis, keepdim=keep)


def matrix_product(left: Tensor, right: Tensor) -> Tensor:
    """ONNX MatMul."""
    return torch.matmul(*on_one_device((left, right)))


def general_product(
    left: Tensor, right: Tensor, added: Tensor | None, alpha: float, beta: float, transposed: tuple[bool, bool]
) -> Tensor:
    """ONNX Gemm: alpha A B + beta C."""
    product = alpha * torch.matmul(left.T if transposed[0] else left, right.T if transposed[1] else right)
    return product if added is None else product + beta * added


def einsum(operands: Sequence[Tensor], equation: str) -> Tensor:
    """ONNX Einsum."""
    return torch.einsum(equation, *operands)


def pad(value: Tensor, pads: Integers, axes: Integers | None, mode: str, fill: float | Tensor) -> Tensor:
    """ONNX Pad: all begins, then all ends; negative pads crop. Modes constant, reflect, edge and wrap."""
    widths = integers(pads)
    places = list(range(value.ndim)) if axes is None else [axis % value.ndim for axis in integers(axes)]
    begins, ends = [0] * value.ndim, [0] * value.ndim
    for place, begin, end in zip(places, widths[: len(places)], widths[len(places) :], strict=True):
        begins[place], ends[place] = begin, end
    if mode == "constant":
        flat = [width for axis in reversed(range(value.ndim)) for width in (begins[axis], ends[axis])]
        return functional.pad(value, flat, value=float(fill))
    for axis in range(value.ndim):
        value = _extend(value, axis, begins[axis], ends[axis], mode)
    return value


def _extend(value: Tensor, axis: int, begin: int, end: int, mode: str) -> Tensor:
    if begin == 0 and end == 0:
        return value
    size = value.shape[axis]
    places = torch.arange(-begin, size + end, device=value.device)
    if mode == "edge":
        places = places.clamp(0, size - 1)
    elif mode == "wrap":
        places = places.remainder(size)
    else:
        period = max(2 * (size - 1), 1)
        places = places.remainder(period)
        places = torch.where(places < size, places, period - places)
    return value.index_select(axis, places)


def depth_to_space(value: Tensor, block: int, mode: str) -> Tensor:
    """ONNX DepthToSpace, on two spatial axes."""
    batch, depth, height, width = value.shape
    if mode == "CRD":
        parts = value.reshape(batch, depth // block**2, block, block, height, width).permute(0, 1, 4, 2, 5, 3)
    else:
        parts = value.reshape(batch, block, block, depth // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, depth // block**2, height * block, width * block)


def scatter_parts(value: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """ONNX ScatterND without reduction."""
    places = indices.to(value.device)
    return value.index_put(tuple(places.unbind(-1)), updates.to(value.device))


def gather_parts(value: Tensor, indices: Tensor) -> Tensor:
    """ONNX GatherND without batch axes."""
    return value[tuple(indices.to(value.device).unbind(-1))]


def reduce(value: Tensor, axes: Integers | None, how: str, keep: bool, whole_if_none: bool) -> Tensor:
    """ONNX Reduce*. The largest along one axis passes its gradient to one element, as torch.max does."""
    places = [] if axes is None else integers(axes)
    if not places:
        if not whole_if_none:
            return value
        places = list(range(value.ndim))
    if how in ("ReduceMax", "ReduceMin") and len(places) == 1:
        function = torch.max if how == "ReduceMax" else torch.min
        result: Tensor = function(value, dim=places[0], keepdim=keep).values
        return result
    return _REDUCTIONS[how](value, places, keep)


def _product(value: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % value.ndim for axis in axes), reverse=True):
        value = value.prod(dim=axis, keepdim=keep)
    return value


_REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceMean": lambda value, axes, keep: value.mean(dim=axes, keepdim=keep),
    "ReduceSum": lambda value, axes, keep: value.sum(dim=axes, keepdim=keep),
    "ReduceMax": lambda value, axes, keep: value.amax(dim=axes, keepdim=keep),
    "ReduceMin": lambda value, axes, keep: value.amin(dim=axes, keepdim=keep),
    "ReduceProd": _product,
    "ReduceL1": lambda value, axes, keep: value.abs().sum(dim=axes, keepdim=keep),
    "ReduceL2": lambda value, axes, keep: torch.linalg.vector_norm(value, dim=axes, keepdim=keep),
    "ReduceSumSquare": lambda value, axes, keep: value.square().sum(dim=axes, keepdim=keep),
    "ReduceLogSum": lambda value, axes, keep: value.sum(dim=axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda value, axes, keep: torch.logsumexp(value, dim=axes, keepdim=keep),
}
