"""How a window lies on its operand: what Conv, MaxPool and AveragePool say in their attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voxplain_server.graph.onnx_graph import Node


@dataclass(frozen=True, slots=True)
class WindowGeometry:
    """One number for each spatial axis.

    Attributes:
        kernel: elements that are read.
        strides: between two windows.
        dilations: between two elements that are read.
        begins, ends: width of the border.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]


def window_geometry(node: Node, shape: Sequence[int], kernel: tuple[int, ...]) -> WindowGeometry | None:
    """Read the attributes of `node`, whose first operand has `shape`; None where they contradict one another."""
    rank = len(kernel)
    if rank == 0 or len(shape) != rank + 2:
        return None
    strides = tuple(node.attributes.get("strides", (1,) * rank))
    dilations = tuple(node.attributes.get("dilations", (1,) * rank))
    pads = tuple(node.attributes.get("pads", (0,) * (2 * rank)))
    begins, ends = pads[:rank], pads[rank:]
    rule = node.attributes.get("auto_pad", "NOTSET")
    if rule == "VALID":
        begins = ends = (0,) * rank
    elif rule in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max((-(-size // step) - 1) * step + (width - 1) * spread + 1 - size, 0)
            for size, step, width, spread in zip(shape[2:], strides, kernel, dilations, strict=True)
        ]
        small, large = tuple(total // 2 for total in totals), tuple(-(-total // 2) for total in totals)
        begins, ends = (small, large) if rule == "SAME_UPPER" else (large, small)
    if any(len(each) != rank for each in (strides, dilations, begins, ends)):
        return None
    return WindowGeometry(kernel, strides, dilations, begins, ends)
