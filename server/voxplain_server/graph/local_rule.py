"""How one operator answers to a local change of what it reads."""

from __future__ import annotations

from dataclasses import dataclass

from voxplain_server.graph.axis_reach import AxisReach, Slide, Whole


@dataclass(frozen=True, slots=True)
class Operand:
    """A value that a step reads and that depends on voxels.

    Attributes:
        value: its name.
        axes: for each axis of the step's result, how it follows the operand.
        fill: what stands outside the operand where the step reaches beyond it.
    """

    value: str
    axes: tuple[AxisReach, ...]
    fill: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether every place of the result reads the same place, all channels of it at most, and no other."""
        return all(_is_own_place(axis, place) for place, axis in enumerate(self.axes))


@dataclass(frozen=True, slots=True)
class Rule:
    """How one operator answers to a local change.

    Attributes:
        operands: the voxel-dependent inputs, in the node's order.
        flops: floating-point operations for the whole result.
        rows: whether axis 0 is computed row by row, so that several cases may be stacked on it.
    """

    operands: tuple[Operand, ...]
    flops: float
    rows: bool = True

    @property
    def has_whole_channels(self) -> bool:
        """Whether a change always reaches all channels of the result."""
        return all(len(operand.axes) > 1 and isinstance(operand.axes[1], Whole) for operand in self.operands)


def _is_own_place(axis: AxisReach, place: int) -> bool:
    if isinstance(axis, Slide):
        return axis.plain and axis.source == place
    return isinstance(axis, Whole) and axis.source == place == 1
