"""Perturbations that are evaluated together: their boxes get equal edges at every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxplain_server.engines.box_copy import Edges
from voxplain_server.engines.dirty_box import BoxTravel, DirtyBoxes
from voxplain_server.graph.box_reach import Corners


@dataclass(frozen=True, slots=True, eq=False)
class BoxGroup:
    """Perturbations with boxes of equal edges.

    Attributes:
        members: (perturbations,) their numbers, ascending.
        starts: for each changed value (perturbations, axes).
        sizes: for each changed value (axes,) the edges.
    """

    members: npt.NDArray[np.int64]
    starts: Mapping[str, Corners]
    sizes: Mapping[str, Edges]

    def parts(self, count: int) -> list[BoxGroup]:
        """Cut into nearly equal parts of at most `count` perturbations."""
        pieces = -(-self.members.size // max(count, 1))
        cuts = np.array_split(np.arange(self.members.size), pieces)
        return [
            BoxGroup(self.members[cut], {value: start[cut] for value, start in self.starts.items()}, self.sizes) for cut in cuts
        ]


def group_by_shape(
    travel: BoxTravel, boxes: DirtyBoxes, chosen: npt.NDArray[np.int64], *, flops_per_call: float
) -> list[BoxGroup]:
    """Group perturbations so that few calls and few operations are needed.

    Boxes of a group grow to common edges. Growing is exact: what is computed around a dirty box equals what was there. Equal
    shapes come together first; the shapes of a smaller group then join the group whose operations they increase least, where
    that costs less than calls of their own.

    Args:
        travel: carries boxes.
        boxes: of all perturbations.
        chosen: the numbers of those to be grouped.
        flops_per_call: operations that take as long as starting one group.
    """
    values = list(boxes.by_value)
    ranks = [boxes.by_value[value].start.shape[1] for value in values]
    cuts = np.cumsum(ranks)[:-1]
    edges = np.concatenate([np.maximum(boxes.by_value[value].size[chosen], 0) for value in values], axis=1)
    shapes, which, counts = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(-1)

    def flops(rows: Edges) -> npt.NDArray[np.float64]:
        return travel.flops(dict(zip(values, np.split(rows, cuts, axis=1), strict=True)))

    alone = flops(shapes)
    home = np.empty(len(shapes), np.int64)
    merged: list[Edges] = []
    sizes: list[int] = []
    for number in np.argsort(-alone, kind="stable"):
        shape, count = shapes[number], int(counts[number])
        best = None
        if merged:
            held = np.stack(merged)
            grown = np.maximum(held, shape)
            extra = flops(grown) * (np.array(sizes) + count) - flops(held) * np.array(sizes) - alone[number] * count
            # Late fusion: a branch that one of them does not touch is not run for the other.
            extra[((held > 0) != (shape > 0)).any(axis=1)] = np.inf
            best = int(np.argmin(extra)) if extra.min() < flops_per_call else None
        if best is None:
            home[number] = len(merged)
            merged.append(shape)
            sizes.append(count)
        else:
            home[number] = best
            merged[best] = grown[best]
            sizes[best] += count
    groups = []
    for number, shape in enumerate(merged):
        members = chosen[np.isin(which, np.flatnonzero(home == number))]
        by_value = dict(zip(values, np.split(shape, cuts), strict=True))
        groups.append(_placed(travel, boxes, members, {value: size for value, size in by_value.items() if size.all()}))
    return groups


def _placed(travel: BoxTravel, boxes: DirtyBoxes, members: npt.NDArray[np.int64], sizes: Mapping[str, Edges]) -> BoxGroup:
    """Move boxes that grew beyond the end of a value back into it."""
    starts = {
        value: np.minimum(boxes.by_value[value].start[members], np.array(travel.locality.shapes[value], np.int64) - size)
        for value, size in sizes.items()
    }
    return BoxGroup(members, starts, sizes)


def alone(boxes: DirtyBoxes, number: int) -> BoxGroup:
    """A group of one perturbation, in its own boxes."""
    dirty = {value: each for value, each in boxes.by_value.items() if (each.stop[number] > each.start[number]).all()}
    sizes = {value: each.stop[number] - each.start[number] for value, each in dirty.items()}
    return BoxGroup(np.array([number]), {value: each.start[number : number + 1] for value, each in dirty.items()}, sizes)
