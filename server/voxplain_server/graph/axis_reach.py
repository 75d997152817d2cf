"""How a change along one axis travels through an operator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slide:
    """Element o reads o * step - begin and the `window` - 1 elements behind it. Elementwise: window 1, step 1, begin 0.

    Attributes:
        source: the axis of the operand.
        window: reach, dilation included.
        step: between two windows.
        begin: border before the operand's first element.
    """

    source: int
    window: int = 1
    step: int = 1
    begin: int = 0

    @property
    def plain(self) -> bool:
        """Whether element o reads element o and nothing else."""
        return self.window == 1 and self.step == 1 and self.begin == 0


@dataclass(frozen=True, slots=True)
class Spread:
    """Element i writes to i * step - begin and the `window` - 1 elements behind it: transposed windows, upsampling."""

    source: int
    window: int
    step: int
    begin: int = 0


@dataclass(frozen=True, slots=True)
class Whole:
    """Every element of the result may depend on every element of the operand; `source` None: the operand has no such axis."""

    source: int | None


AxisReach = Slide | Spread | Whole
