"""Copying boxes between stacked crops and whole values, on the host and on an accelerator."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voxplain_server.engines.crop_tensor import by_case, empty
from voxplain_server.graph.box_reach import Corners

Edges = npt.NDArray[np.int64]
"""(axes,)."""


def gather_boxes(value: Tensor, start: Corners, size: Edges, *, fill: float, hole: tuple[Corners, Corners] | None) -> Tensor:
    """Cut boxes of equal edges from one value.

    Args:
        value: (*axes).
        start: (count, axes); boxes may reach beyond the value.
        size: of every box.
        fill: what stands beyond.
        hole: start and stop of what will be written over, (count, axes) each: it may be left out.

    Returns:
        (count * size[0], *size[1:]).
    """
    if value.device.type != "cpu":
        return gather_at_once(value, start, size, fill=fill)
    count, edges = len(start), [int(edge) for edge in size]
    crop = empty(count * edges[0], *edges[1:], like=value)
    targets = by_case(crop, count)
    lower, upper = np.maximum(start, 0), np.minimum(start + size, value.shape)
    for row in np.flatnonzero(((lower != start) | (upper != start + size)).any(axis=1)).tolist():
        targets[row].fill_(fill)
    if hole is None:
        copy_boxes(targets, value, lower - start, lower, upper)
    else:
        _copy_around(targets, value, start, (lower, upper), hole)
    return crop


def gather_at_once(value: Tensor, start: Corners, size: Edges, *, fill: float) -> Tensor:
    """As gather_boxes, by one look-up: on an accelerator every copy of its own costs as much as a layer."""
    count, rank = start.shape
    whole_channels = rank > 1 and int(size[1]) == value.shape[1]
    axes = [axis for axis in range(rank) if not (axis == 1 and whole_channels)]
    starts = torch.from_numpy(start).to(value.device)
    index: list[Any] = [slice(None)] * rank
    inside: Tensor | None = None
    for order, axis in enumerate(axes):
        places = starts[:, axis, None] + torch.arange(int(size[axis]), device=value.device)
        shape = [count, *(int(size[axis]) if other == order else 1 for other in range(len(axes)))]
        index[axis] = places.clamp(0, value.shape[axis] - 1).reshape(shape)
        if bool((start[:, axis] < 0).any() or (start[:, axis] + size[axis] > value.shape[axis]).any()):
            within = ((places >= 0) & (places < value.shape[axis])).reshape(shape)
            inside = within if inside is None else inside & within
    # With a slice between look-ups, what is looked up comes first and the channels last: as convolutions like it.
    crop = value[tuple(index)]
    if inside is not None:
        crop = torch.where(inside[..., None] if whole_channels else inside, crop, fill)
    if whole_channels:
        crop = crop.movedim(-1, 2)
    return crop.flatten(0, 1)


def copy_boxes(targets: Tensor, sources: Tensor, target_at: Corners, source_at: Corners, source_to: Corners) -> None:
    """Copy a box for each row of `targets`, from the same row of `sources` or from its only one.

    Args:
        targets: (count, *axes).
        sources: (count, *axes), or (*axes) on the host.
        target_at: (count, axes) where each box goes.
        source_at, source_to: (count, axes) where each box is; an empty one is not copied.
    """
    rows = np.flatnonzero((source_to > source_at).all(axis=1))
    if targets.device.type != "cpu":
        copy_alike(targets, sources, rows, target_at, source_at, source_to)
        return
    # Slicing and copying small boxes takes numpy a fifth of the time that it takes torch.
    into: Any = targets.numpy()
    out_of: Any = sources.numpy()
    alone = sources.ndim < targets.ndim
    places, origins, limits = target_at.tolist(), source_at.tolist(), source_to.tolist()
    ends = (target_at + source_to - source_at).tolist()
    for row in rows.tolist():
        taken = tuple(map(slice, origins[row], limits[row]))
        into[(row, *map(slice, places[row], ends[row]))] = out_of[taken] if alone else out_of[(row, *taken)]


def copy_alike(
    targets: Tensor, sources: Tensor, rows: npt.NDArray[np.int64], target_at: Corners, source_at: Corners, source_to: Corners
) -> None:
    """As copy_boxes for `rows`, by one copy for all whose boxes stand at the same place."""
    if rows.size == 0:
        return
    rank = target_at.shape[1]
    stands = np.concatenate([target_at, source_at, source_to], axis=1)[rows]
    kinds, kind_of = np.unique(stands, axis=0, return_inverse=True)
    for kind, (place, origin, limit) in enumerate(zip(*np.split(kinds, [rank, 2 * rank], axis=1), strict=True)):
        chosen: Any = slice(None)
        members = rows[kind_of.reshape(-1) == kind]
        if members.size < len(targets):
            chosen = torch.from_numpy(members).to(targets.device)
        into = (chosen, *map(slice, place.tolist(), (place + limit - origin).tolist()))
        targets[into] = sources[(chosen, *map(slice, origin.tolist(), limit.tolist()))]


def cut_boxes(elements: Tensor, count: int, offset: Corners, size: Edges) -> Tensor:
    """Cut a box from each of `count` stacked tensors; a view where all stand at one place.

    Args:
        elements: (count * rows, ...).
        count: perturbations.
        offset: (count, axes) where each box starts.
        size: of every box.
    """
    whole = by_case(elements, count)
    edges = [int(edge) for edge in size]
    if (offset == offset[0]).all():
        places = tuple(slice(int(at), int(at) + edge) for at, edge in zip(offset[0], edges, strict=True))
        return whole[(slice(None), *places)].flatten(0, 1)
    found = empty(count * edges[0], *edges[1:], like=elements)
    copy_boxes(by_case(found, count), whole, np.zeros_like(offset), offset, offset + size)
    return found


def _copy_around(
    targets: Tensor, value: Tensor, start: Corners, outer: tuple[Corners, Corners], inner: tuple[Corners, Corners]
) -> None:
    """Copy what of the outer boxes is not in the inner ones, as slabs: a few copies more, but fewer elements."""
    lower, upper = outer
    first, behind = np.clip(inner[0], lower, upper), np.clip(inner[1], lower, upper)
    # Where there is nothing inside, the first slab is all there is.
    nothing = (behind <= first).any(axis=1)
    first[nothing] = behind[nothing] = upper[nothing]
    for axis in range(lower.shape[1]):
        for slab_from, slab_to in ((lower, first), (behind, upper)):
            if (slab_to[:, axis] > slab_from[:, axis]).any():
                slab = lower.copy(), upper.copy()
                slab[0][:, axis], slab[1][:, axis] = slab_from[:, axis], slab_to[:, axis]
                copy_boxes(targets, value, slab[0] - start, *slab)
        lower, upper = lower.copy(), upper.copy()
        lower[:, axis], upper[:, axis] = first[:, axis], behind[:, axis]
