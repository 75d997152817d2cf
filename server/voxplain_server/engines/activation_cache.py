"""What the model computes on the unperturbed case, value by value, and crops of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voxplain_server.graph.box_reach import Corners

_MEMORY = {4: torch.channels_last, 5: torch.channels_last_3d}

_WORTH_GOING_AROUND = 64 << 10
"""Bytes of a patch from which on the unperturbed elements below it are not copied first."""


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
    size: npt.NDArray[np.int64]


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

    def absorb(self, name: str, patch: Patch) -> None:
        """Take note of changed elements: nothing is done, they stay apart."""

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        return sum(tensor.nbytes for tensor in self._values.values())

    def crop(
        self,
        name: str,
        start: Corners,
        size: npt.NDArray[np.int64],
        *,
        fill: float,
        patch: Patch | None,
        shared: bool = True,
    ) -> Tensor:
        """Cut a box of equal edges for each perturbation, with its changed elements in place.

        Args:
            name: the value.
            start: (perturbations, axes); a box may reach beyond the value.
            size: (axes,).
            fill: what stands beyond.
            patch: the changed elements; None: nothing changed.
            shared: whether the result may be the patch itself.

        Returns:
            (perturbations * size[0], *size[1:]).
        """
        if patch is not None and shared:
            within = _within(patch, start, size)
            if within is not None:
                return within
        base = self._value(name)
        count, edges = len(start), [int(edge) for edge in size]
        crop = empty(count * edges[0], *edges[1:], like=base)
        targets = by_case(crop, count)
        stop, shape = start + size, np.array(base.shape, np.int64)
        lower, upper = np.maximum(start, 0), np.minimum(stop, shape)
        for row in np.flatnonzero(((lower != start) | (upper != stop)).any(axis=1)).tolist():
            targets[row].fill_(fill)
        if patch is None or self.holds_changes:
            _copy(targets, base, lower - start, lower, upper)
            return crop
        inner = np.maximum(start, patch.start), np.minimum(stop, patch.start + patch.size)
        if patch.elements.nbytes >= count * _WORTH_GOING_AROUND:
            _copy_around(targets, base, start, (lower, upper), inner)
        else:
            _copy(targets, base, lower - start, lower, upper)
        _copy(targets, by_case(patch.elements, count), inner[0] - start, inner[0] - patch.start, inner[1] - patch.start)
        return crop

    def _value(self, name: str) -> Tensor:
        return self._values[name]


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

    def _value(self, name: str) -> Tensor:
        return self._own[name] if name in self._changed else self._values[name]


def empty(*shape: int, like: Tensor) -> Tensor:
    """A tensor whose elements are still to be written, in the memory order that convolutions like."""
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=_MEMORY.get(len(shape), torch.contiguous_format)
    )


def cut(elements: Tensor, count: int, offset: Corners, size: npt.NDArray[np.int64]) -> Tensor:
    """Cut a box from each of `count` stacked tensors; a view where all stand at one place.

    Args:
        elements: (count * rows, ...).
        count: perturbations.
        offset: (count, axes) where each box starts.
        size: (axes,).
    """
    whole = by_case(elements, count)
    if (offset == offset[0]).all():
        places = tuple(slice(int(at), int(at) + int(edge)) for at, edge in zip(offset[0], size, strict=True))
        return whole[(slice(None), *places)].flatten(0, 1)
    edges = [int(edge) for edge in size]
    found = empty(count * edges[0], *edges[1:], like=elements)
    _copy(by_case(found, count), whole, np.zeros_like(offset), offset, offset + size)
    return found


def _within(patch: Patch, start: Corners, size: npt.NDArray[np.int64]) -> Tensor | None:
    """The part of a patch that holds all boxes at one place; None where there is none."""
    offset = start - patch.start
    if (offset != offset[0]).any() or (offset[0] < 0).any() or (offset[0] + size > patch.size).any():
        return None
    if not offset[0].any() and (size == patch.size).all():
        return patch.elements
    return cut(patch.elements, len(start), offset, size)


def _copy_around(
    targets: Tensor, base: Tensor, start: Corners, outer: tuple[Corners, Corners], inner: tuple[Corners, Corners]
) -> None:
    """Copy what of the outer boxes is not in the inner ones, as slabs: a few copies more, but fewer elements."""
    lower, upper = outer
    hole = np.clip(inner[0], lower, upper), np.clip(inner[1], lower, upper)
    # Where there is nothing inside, the first slab is all there is.
    nothing = (hole[1] <= hole[0]).any(axis=1)
    hole[0][nothing] = hole[1][nothing] = upper[nothing]
    for axis in range(lower.shape[1]):
        for first, behind in ((lower, hole[0]), (hole[1], upper)):
            slab = lower.copy(), upper.copy()
            slab[0][:, axis], slab[1][:, axis] = first[:, axis], behind[:, axis]
            if (slab[1][:, axis] > slab[0][:, axis]).any():
                _copy(targets, base, slab[0] - start, slab[0], slab[1])
        lower, upper = lower.copy(), upper.copy()
        lower[:, axis], upper[:, axis] = hole[0][:, axis], hole[1][:, axis]


def _copy(targets: Tensor, sources: Tensor, target_at: Corners, source_at: Corners, source_to: Corners) -> None:
    """Copy a box for each row of `targets`, from the same row of `sources` or from its only one."""
    rows = np.flatnonzero((source_to > source_at).all(axis=1)).tolist()
    # Slicing and copying small boxes takes numpy a fifth of the time that it takes torch.
    into, out_of = _fast(targets), _fast(sources)
    alone = sources.ndim < targets.ndim
    places, origins, limits = target_at.tolist(), source_at.tolist(), source_to.tolist()
    ends = (target_at + source_to - source_at).tolist()
    for row in rows:
        taken = tuple(map(slice, origins[row], limits[row]))
        into[(row, *map(slice, places[row], ends[row]))] = out_of[taken] if alone else out_of[(row, *taken)]


def _fast(tensor: Tensor) -> Any:
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def channels_last(tensor: Tensor) -> Tensor:
    """The tensor in the memory order that convolutions like, copied only where it is not."""
    memory = _MEMORY.get(tensor.ndim)
    return tensor.contiguous() if memory is None else tensor.contiguous(memory_format=memory)


def by_case(tensor: Tensor, count: int) -> Tensor:
    """(count, rows, ...) of (count * rows, ...), without a copy."""
    return tensor.view(count, tensor.shape[0] // count, *tensor.shape[1:])


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """Tensors of one perturbation each, behind one another on axis 0."""
    return rows[0] if len(rows) == 1 else torch.cat(list(rows))
