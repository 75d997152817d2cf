"""What the model computes on the unperturbed case, value by value, and crops of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voxplain_server.graph.box_reach import Corners

_MEMORY = {4: torch.channels_last, 5: torch.channels_last_3d}


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
    """Unperturbed values, and how crops are cut from them.

    Args:
        values: each with axis 0 of the case alone; channels-last where it has planes or volumes.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name]

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
        writable: bool = False,
    ) -> Tensor:
        """Cut a box of equal edges for each perturbation, with its changed elements in place.

        Args:
            name: the value.
            start: (perturbations, axes); a box may reach beyond the value.
            size: (axes,).
            fill: what stands beyond.
            patch: the changed elements; None: nothing changed.
            writable: False: the result may be the patch itself.

        Returns:
            (perturbations * size[0], *size[1:]).
        """
        if patch is not None and not writable:
            within = _within(patch, start, size)
            if within is not None:
                return within
        base = self._values[name]
        count, edges = len(start), [int(edge) for edge in size]
        crop = empty(count * edges[0], *edges[1:], like=base)
        shape = np.array(base.shape, np.int64)
        lower, upper = np.clip(start, 0, shape), np.clip(start + size, 0, shape)
        targets = crop.unflatten(0, (count, edges[0]))
        beyond = (lower != start).any(axis=1) | (upper != start + size).any(axis=1)
        for row in np.flatnonzero(beyond):
            targets[int(row)].fill_(fill)
        _copy(targets, base, lower - start, lower, upper - lower)
        if patch is not None:
            inside = np.maximum(start, patch.start), np.minimum(start + size, patch.start + patch.size)
            changed = patch.elements.unflatten(0, (count, int(patch.size[0])))
            _copy(targets, changed, inside[0] - start, inside[0] - patch.start, inside[1] - inside[0])
        return crop


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
    whole = elements.unflatten(0, (count, elements.shape[0] // count))
    edges = [int(edge) for edge in size]
    if (offset == offset[0]).all():
        places = tuple(slice(int(at), int(at) + edge) for at, edge in zip(offset[0], edges, strict=True))
        return whole[(slice(None), *places)].flatten(0, 1)
    found = empty(count * edges[0], *edges[1:], like=elements)
    _copy(found.unflatten(0, (count, edges[0])), whole, np.zeros_like(offset), offset, np.repeat(size[None], count, axis=0))
    return found


def _within(patch: Patch, start: Corners, size: npt.NDArray[np.int64]) -> Tensor | None:
    """The part of a patch that holds all boxes at one place; None where there is none."""
    offset = start - patch.start
    if (offset != offset[0]).any() or (offset[0] < 0).any() or (offset[0] + size > patch.size).any():
        return None
    if not offset[0].any() and (size == patch.size).all():
        return patch.elements
    return cut(patch.elements, len(start), offset, size)


def _copy(targets: Tensor, sources: Tensor, target_at: Corners, source_at: Corners, size: Corners) -> None:
    """Copy a box for each row of `targets`, from the same row of `sources` or from its only one."""
    rows = np.flatnonzero((size > 0).all(axis=1))
    # Slicing and copying small boxes takes numpy a fifth of the time that it takes torch.
    into, out_of = (_fast(targets), _fast(sources))
    alone = sources.ndim < targets.ndim
    starts, ends = target_at[rows].tolist(), (target_at + size)[rows].tolist()
    origins, limits = source_at[rows].tolist(), (source_at + size)[rows].tolist()
    for row, start, end, origin, limit in zip(rows.tolist(), starts, ends, origins, limits, strict=True):
        taken = tuple(map(slice, origin, limit))
        into[(row, *map(slice, start, end))] = out_of[taken] if alone else out_of[(row, *taken)]


def _fast(tensor: Tensor) -> npt.NDArray[np.generic] | Tensor:
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def channels_last(tensor: Tensor) -> Tensor:
    """The tensor in the memory order that convolutions like, copied only where it is not."""
    memory = _MEMORY.get(tensor.ndim)
    return tensor.contiguous() if memory is None else tensor.contiguous(memory_format=memory)


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """Tensors of one perturbation each, behind one another on axis 0."""
    return rows[0] if len(rows) == 1 else torch.cat(list(rows))
