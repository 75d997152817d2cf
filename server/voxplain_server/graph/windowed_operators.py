"""Builders of operators that slide a window: convolutions, poolings, resizing."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from voxplain_server.graph import tensor_functions
from voxplain_server.graph.site import Site

_CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_MAX_POOLS: dict[int, type[nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d]] = {
    1: nn.MaxPool1d,
    2: nn.MaxPool2d,
    3: nn.MaxPool3d,
}
_AVERAGE_POOLS: dict[int, type[nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d]] = {
    1: nn.AvgPool1d,
    2: nn.AvgPool2d,
    3: nn.AvgPool3d,
}
_GLOBAL_AVERAGE = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
_GLOBAL_MAX = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}
_LINEAR_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
_TORCH_CUBIC_COEFFICIENT = -0.75


def frozen(tensor: Tensor) -> nn.Parameter:
    """A weight through which gradients flow, but none is ever asked for."""
    return nn.Parameter(tensor, requires_grad=False)


def build_convolution(site: Site) -> fx.Node:
    """Conv, in one to three spatial axes."""
    weight = site.weight(1)
    kernel = tuple(weight.shape[2:])
    stride, dilation = _steps(site, "strides", len(kernel)), _steps(site, "dilations", len(kernel))
    begins, ends = _pads(site, kernel, stride, dilation)
    symmetric = begins == ends
    groups = int(site.attribute("group", 1))
    module = _of_rank(site, _CONVOLUTIONS, len(kernel))(
        weight.shape[1] * groups,
        weight.shape[0],
        kernel,
        stride,
        begins if symmetric else 0,
        dilation,
        groups,
        bias=site.has(2),
        device="meta",
    )
    module.weight = frozen(weight)
    if site.has(2):
        module.bias = frozen(site.weight(2))
    return site.module(module) if symmetric else site.module(module, _padded(site, begins, ends, 0.0))


def build_transposed_convolution(site: Site) -> fx.Node:
    """ConvTranspose; uneven pads crop what the module makes without pads."""
    weight = site.weight(1)
    kernel = tuple(weight.shape[2:])
    stride, dilation = _steps(site, "strides", len(kernel)), _steps(site, "dilations", len(kernel))
    extra = tuple(site.attribute("output_padding", (0,) * len(kernel)))
    begins, ends, extra = _transposed_pads(site, kernel, stride, dilation, extra)
    symmetric = begins == ends
    groups = int(site.attribute("group", 1))
    module = _of_rank(site, _TRANSPOSED, len(kernel))(
        weight.shape[0],
        weight.shape[1] * groups,
        kernel,
        stride,
        begins if symmetric else 0,
        extra,
        groups,
        site.has(2),
        dilation,
        device="meta",
    )
    module.weight = frozen(weight)
    if site.has(2):
        module.bias = frozen(site.weight(2))
    if symmetric:
        return site.module(module)
    cropped = [-begin for begin in begins], [-end for end in ends]
    return site.call(tensor_functions.pad, site.module(module), [0, 0, *cropped[0], 0, 0, *cropped[1]], None, "constant", 0.0)


def build_max_pool(site: Site) -> fx.Node:
    """MaxPool without indices."""
    if site.uses_output(1):
        raise site.unsupported("indices")
    kernel = tuple(site.attribute("kernel_shape"))
    stride, dilation = _steps(site, "strides", len(kernel)), _steps(site, "dilations", len(kernel))
    begins, ends = _pads(site, kernel, stride, dilation)
    inside = begins == ends and all(2 * begin <= size for begin, size in zip(begins, kernel, strict=True))
    module = _of_rank(site, _MAX_POOLS, len(kernel))(
        kernel, stride, begins if inside else 0, dilation, ceil_mode=bool(site.attribute("ceil_mode", 0))
    )
    # The lowest finite number, not infinity: rules of DeepLift subtract two such borders from one another.
    lowest = torch.finfo(site.dtype).min
    return site.module(module) if inside else site.module(module, _padded(site, begins, ends, lowest))


def build_average_pool(site: Site) -> fx.Node:
    """AveragePool, with the border counted or not."""
    kernel = tuple(site.attribute("kernel_shape"))
    rank = len(kernel)
    if any(step != 1 for step in _steps(site, "dilations", rank)):
        raise site.unsupported("dilations")
    stride = _steps(site, "strides", rank)
    begins, ends = _pads(site, kernel, stride, (1,) * rank)
    counted = bool(site.attribute("count_include_pad", 0))
    inside = begins == ends and all(2 * begin <= size for begin, size in zip(begins, kernel, strict=True))
    # In three axes PyTorch refuses a window larger than the value, even where the border makes it fit.
    inside = inside and (rank < 3 or not any(begins) or _fits(site, kernel))
    rounds_up = bool(site.attribute("ceil_mode", 0))
    if not inside and (rounds_up or not counted):
        return site.call(_average_inside, site.value(0), kernel, stride, begins, ends, rounds_up, counted)
    pool = _of_rank(site, _AVERAGE_POOLS, rank)
    module: nn.Module = pool(kernel, stride, begins if inside else 0, ceil_mode=rounds_up, count_include_pad=counted)
    return site.module(module) if inside else site.module(module, _padded(site, begins, ends, 0.0))


def build_global_average_pool(site: Site) -> fx.Node:
    """GlobalAveragePool."""
    return site.module(_of_rank(site, _GLOBAL_AVERAGE, site.rank() - 2)(1))


def build_global_max_pool(site: Site) -> fx.Node:
    """GlobalMaxPool."""
    return site.module(_of_rank(site, _GLOBAL_MAX, site.rank() - 2)(1))


def build_resize(site: Site) -> fx.Node:
    """Resize and Upsample of the spatial axes, where torch has the same interpolation."""
    rank = site.rank() - 2
    scales = _resize_scales(site)
    size = None if scales is not None else _resize_sizes(site)
    mode, aligned = _resize_mode(site, rank, scales)
    options: dict[str, Any] = {"size": size} if scales is None else {"scale_factor": scales}
    return site.module(nn.Upsample(mode=mode, align_corners=aligned, **options))


def _resize_mode(site: Site, rank: int, scales: tuple[float, ...] | None) -> tuple[str, bool | None]:
    mode = site.attribute("mode", "nearest")
    upsample = site.node.op == "Upsample"
    place = site.attribute("coordinate_transformation_mode", "asymmetric" if upsample else "half_pixel")
    rounding = site.attribute("nearest_mode", "floor" if upsample else "round_prefer_floor")
    if site.attribute("antialias", 0) or site.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise site.unsupported("antialias or keep_aspect_ratio_policy")
    if mode == "nearest":
        whole = scales is not None and all(scale == int(scale) for scale in scales)
        if place == "asymmetric" and (rounding == "floor"):
            return "nearest", None
        if place == "half_pixel" and (rounding == "round_prefer_ceil" or (rounding == "round_prefer_floor" and whole)):
            return "nearest-exact", None
    if place in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        aligned = place == "align_corners"
        if mode == "linear" and rank in _LINEAR_MODES:
            return _LINEAR_MODES[rank], aligned
        if mode == "cubic" and rank == 2 and site.attribute("cubic_coeff_a", -0.75) == _TORCH_CUBIC_COEFFICIENT:
            return "bicubic", aligned
    raise site.unsupported(f"{mode}, {place}" + (f", {rounding}" if mode == "nearest" else ""))


def _resize_scales(site: Site) -> tuple[float, ...] | None:
    upsample = site.node.op == "Upsample" or site.graph.opset < 11
    found = site.attribute("scales") if upsample else None
    if found is None:
        constant = site.constant(1 if upsample else 2)
        found = None if constant is None or constant.size == 0 else constant.reshape(-1)
    if found is None:
        return None
    scales = _on_all_axes(site, [float(scale) for scale in found], 1.0)
    if scales[:2] != [1.0, 1.0]:
        raise site.unsupported("batch or channel axis")
    return tuple(scales[2:])


def _resize_sizes(site: Site) -> tuple[int, ...]:
    sizes = site.constant(3)
    if sizes is not None:
        return tuple(int(size) for size in _on_all_axes(site, [int(size) for size in sizes], 1)[2:])
    shape = site.graph.shape(site.node.outputs[0]) or ()
    known = tuple(size for size in shape[2:] if isinstance(size, int))
    if len(known) != site.rank() - 2:
        raise site.unsupported("computed size")
    return known


def _on_all_axes(site: Site, values: list[Any], otherwise: Any) -> list[Any]:
    axes = site.attribute("axes")
    if axes is None:
        return values
    spread = [otherwise] * site.rank()
    for axis, value in zip(axes, values, strict=True):
        spread[axis] = value
    return spread


def _fits(site: Site, kernel: Sequence[int]) -> bool:
    """Whether the window is known to fit into the value without its border."""
    sizes = site.spatial_shape()
    return sizes is not None and all(width <= size for width, size in zip(kernel, sizes, strict=True))


def _average_inside(
    value: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    begins: Sequence[int],
    ends: Sequence[int],
    rounds_up: bool,
    counted: bool,
) -> Tensor:
    """The mean over uneven borders: windows summed, divided by the number of elements that count."""
    pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[len(kernel)]
    pads = [width for pair in zip(reversed(begins), reversed(ends), strict=True) for width in pair]
    inner = torch.ones_like(value[:1, :1])
    weight = functional.pad(inner, pads, value=1.0 if counted else 0.0)
    options: dict[str, Any] = {
        "kernel_size": tuple(kernel),
        "stride": tuple(stride),
        "padding": 0,
        "ceil_mode": rounds_up,
    }
    total: Tensor = pool(functional.pad(value, pads), **options)
    share: Tensor = pool(weight, **options)
    return total / share


def _of_rank(site: Site, table: dict[int, Any], rank: int) -> Any:
    if rank not in table:
        raise site.unsupported(f"{rank} spatial axes")
    return table[rank]


def _steps(site: Site, name: str, rank: int) -> tuple[int, ...]:
    return tuple(site.attribute(name, (1,) * rank))


def _pads(
    site: Site, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = len(kernel)
    rule = site.attribute("auto_pad", "NOTSET")
    if rule == "VALID":
        return (0,) * rank, (0,) * rank
    if rule in ("SAME_UPPER", "SAME_LOWER"):
        sizes = site.spatial_shape()
        if sizes is None:
            raise site.unsupported("auto_pad of unknown shape")
        totals = [
            max((-(-size // step) - 1) * step + (width - 1) * spread + 1 - size, 0)
            for size, step, width, spread in zip(sizes, stride, kernel, dilation, strict=True)
        ]
        return _halves(totals, larger_end=rule == "SAME_UPPER")
    pads = tuple(site.attribute("pads", (0,) * (2 * rank)))
    return pads[:rank], pads[rank:]


def _transposed_pads(
    site: Site, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], extra: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    rule = site.attribute("auto_pad", "NOTSET")
    wanted = site.attribute("output_shape")
    if wanted is None and rule in ("NOTSET", "VALID"):
        begins, ends = _pads(site, kernel, stride, dilation)
        return begins, ends, extra
    sizes = site.spatial_shape()
    if sizes is None:
        raise site.unsupported("output_shape of unknown input")
    if wanted is None:
        wanted = [size * step for size, step in zip(sizes, stride, strict=True)]
    totals = [
        step * (size - 1) + more + (width - 1) * spread + 1 - out
        for step, size, more, width, spread, out in zip(
            stride, sizes, extra, kernel, dilation, wanted[-len(kernel) :], strict=True
        )
    ]
    if min(totals) < 0:
        raise site.unsupported("output_shape beyond the kernel's reach")
    begins, ends = _halves(totals, larger_end=rule == "SAME_UPPER")
    return begins, ends, extra


def _halves(totals: Sequence[int], *, larger_end: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    small = tuple(total // 2 for total in totals)
    large = tuple(total - half for total, half in zip(totals, small, strict=True))
    return (small, large) if larger_end else (large, small)


def _padded(site: Site, begins: Sequence[int], ends: Sequence[int], fill: float) -> fx.Node:
    return site.call(tensor_functions.pad, site.value(0), [0, 0, *begins, 0, 0, *ends], None, "constant", fill)
