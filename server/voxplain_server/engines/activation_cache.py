"""What the model computes on the unperturbed case, value by value, and crops of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from voxplain_server.engines.box_copy import Edges, copy_boxes, cut_boxes, gather_boxes
from voxplain_server.engines.crop_tensor import by_case
from voxplain_server.graph.box_reach import Corners

_WORTH_GOING_AROUND = 64 << 10
"""Bytes of a changed box from which on the unperturbed elements below it are not copied first."""


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Changed elements of one value, for several perturbations.

    Attributes:
        elements: (perturbations * size[0], *size[1:]).
        start: (perturbations, axes) where each stands in the value.
        size: (axes,) edges, the same for all.
    """

    elements: Tensor
    start: Corners
    size: Edges


class ActivationCache:
    """Unperturbed values, and how crops are cut from them. It is never changed, so several threads may read it.

    Args:
        values: each with axis 0 of the case alone; channels-last where it has planes or volumes.
    """

    holds_changes = False
    """Whether changed elements are in the values already."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name]

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        return sum(tensor.nbytes for tensor in self._values.values())

    def absorb(self, name: str, patch: Patch) -> None:
        """Take note of changed elements: nothing is done, they stay apart."""

    def crop(self, name: str, start: Corners, size: Edges, *, fill: float = 0.0, patch: Patch | None = None) -> Tensor:
        """Cut a box of equal edges for each perturbation, with its changed elements in place.

        Args:
            name: the value.
            start: (perturbations, axes); a box may reach beyond the value.
            size: of every box.
            fill: what stands beyond.
            patch: the changed elements; None: nothing changed.

        Returns:
            (perturbations * size[0], *size[1:]); it may be the patch itself.
        """
        if patch is None:
            return gather_boxes(self[name], start, size, fill=fill, hole=None)
        within = _within(patch, start, size)
        if within is not None:
            return within
        if self.holds_changes:
            return gather_boxes(self[name], start, size, fill=fill, hole=None)
        count = len(start)
        lower, upper = np.maximum(start, patch.start), np.minimum(start + size, patch.start + patch.size)
        large = patch.elements.nbytes >= count * _WORTH_GOING_AROUND
        crop = gather_boxes(self[name], start, size, fill=fill, hole=(lower, upper) if large else None)
        targets, sources = by_case(crop, count), by_case(patch.elements, count)
        copy_boxes(targets, sources, lower - start, lower - patch.start, upper - patch.start)
        return crop


class WalkCache(ActivationCache):
    """The values of the perturbation evaluated last, on top of the unperturbed ones. For one perturbation at a time.

    Args:
        base: the unperturbed values.
    """

    holds_changes = True

    def __init__(self, base: ActivationCache) -> None:
        super().__init__(base._values)
        self._own: dict[str, Tensor] = {}
        self._changed: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        return self._own[name] if name in self._changed else self._values[name]

    def absorb(self, name: str, patch: Patch) -> None:
        """Write changed elements over what was there; a value is copied when it is first written to."""
        base = self._values.get(name)
        if base is None:
            return
        if name not in self._changed:
            self._changed.add(name)
            if name in self._own:
                self._own[name].copy_(base)
            else:
                self._own[name] = base.clone()
        box = tuple(slice(int(at), int(at) + int(edge)) for at, edge in zip(patch.start[0], patch.size, strict=True))
        self._own[name][box] = patch.elements

    def forget(self) -> None:
        """Go back to the unperturbed values; the memory is kept for the next walk."""
        self._changed.clear()


def _within(patch: Patch, start: Corners, size: Edges) -> Tensor | None:
    """The part of a patch that holds all boxes at one place; None where there is none."""
    offset = start - patch.start
    if (offset != offset[0]).any() or (offset[0] < 0).any() or (offset[0] + size > patch.size).any():
        return None
    if not offset[0].any() and (size == patch.size).all():
        return patch.elements
    return cut_boxes(patch.elements, len(start), offset, size)
