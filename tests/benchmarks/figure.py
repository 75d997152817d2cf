"""One measured number beside its bound."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that was measured.

    Attributes:
        name: stable; a ratio's name says against what.
        value: the number.
        unit: of the number: "GB/s", "x", "MiB", "s", ...
        bound: what it must reach; None: it is printed without a bound.
        kind: "min" (at least the bound) or "max" (at most).
        detail: how it came about, one line.
    """

    name: str
    value: float
    unit: str
    bound: float | None
    kind: str
    detail: str = ""

    @property
    def met(self) -> bool:
        """Whether the bound is reached; True where there is none."""
        if self.bound is None:
            return True
        return self.value >= self.bound if self.kind == "min" else self.value <= self.bound
