"""How the perturbations of one call are evaluated: alone in groups, from one another, or by whole passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxplain_server.engines.change_table import ChangeTable, Rows
from voxplain_server.engines.dirty_box import BoxTravel, DirtyBoxes
from voxplain_server.engines.incremental_groups import BoxGroup, group_by_shape
from voxplain_server.engines.incremental_walks import Walk, plan_walks, share_out
from voxplain_server.engines.perturbation import Perturbation


@dataclass(frozen=True, slots=True)
class CostModel:
    """What decides between the ways to evaluate a perturbation, in operations.

    Attributes:
        most: what a perturbation may take by itself; beyond it a whole pass of the dense engine is cheaper.
        per_call: operations that take as long as starting one layer.
        streams: how many computations run side by side.
        chunk_bytes: memory for the crops of one of them.
        element_bytes: of one element.
    """

    most: float
    per_call: float
    streams: int
    chunk_bytes: int
    element_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class IncrementalPlan:
    """Numbers are those of the perturbations in the call; what is in none of the three changes nothing that is read.

    Attributes:
        table: all changes.
        rows: the changes that each perturbation is made of.
        boxes: what each dirties.
        flops: what each takes by itself, from the case.
        walks: those evaluated from one another.
        grouped: those evaluated by themselves.
        dense: those left to the dense engine.
    """

    table: ChangeTable
    rows: list[Rows]
    boxes: DirtyBoxes
    flops: npt.NDArray[np.float64]
    walks: list[Walk]
    grouped: npt.NDArray[np.int64]
    dense: npt.NDArray[np.int64]


def plan_evaluations(
    travel: BoxTravel, table: ChangeTable, perturbations: Sequence[Perturbation], costs: CostModel
) -> IncrementalPlan:
    """Decide by counted operations; a pure function of its arguments."""
    rows = [table.rows(each) for each in perturbations]
    boxes = travel.travel(table.boxes(rows), len(rows))
    flops = travel.count_flops(boxes)
    walks = _walks(travel, table, rows, flops, costs)
    by_itself = travel.reach_end(boxes)
    for walk in walks:
        by_itself[list(walk.order)] = False
    dense = by_itself & (flops > costs.most)
    return IncrementalPlan(table, rows, boxes, flops, walks, np.flatnonzero(by_itself & ~dense), np.flatnonzero(dense))


def cut_into_chunks(travel: BoxTravel, plan: IncrementalPlan, costs: CostModel) -> list[BoxGroup]:
    """The groups of a plan in parts that fit into memory and keep all streams busy, the longest first."""
    if plan.grouped.size == 0:
        return []
    per_group = costs.per_call * len(travel.locality.steps)
    groups = group_by_shape(travel, plan.boxes, plan.grouped, flops_per_call=per_group)
    share = sum(group.members.size * travel.work(group.sizes) for group in groups) / (2 * costs.streams)
    parts = []
    for group in groups:
        fits = costs.chunk_bytes // max(travel.elements(group.sizes) * costs.element_bytes, 1)
        # No stream is to wait long for the last part of another one.
        fair = share // travel.work(group.sizes)
        parts.extend(group.parts(max(1, int(min(fits, fair)))))
    return sorted(parts, key=lambda part: -part.members.size * travel.work(part.sizes))


def _walks(
    travel: BoxTravel, table: ChangeTable, rows: Sequence[Rows], flops: npt.NDArray[np.float64], costs: CostModel
) -> list[Walk]:
    near = [number for number in range(1, len(rows)) if _are_near(rows[number - 1], rows[number])]
    if not near:
        return []
    between = [np.setxor1d(rows[number - 1], rows[number], assume_unique=True) for number in near]
    from_neighbour = np.full(len(rows), np.inf)
    from_neighbour[near] = travel.count_flops(travel.travel(table.boxes(between), len(between)))
    walks = [
        walk
        for walk in plan_walks(flops, from_neighbour, most=costs.most)
        if table.are_apart(np.unique(np.concatenate([rows[number] for number in walk.order])))
    ]
    return share_out(walks, flops, streams=costs.streams, full=travel.locality.full_flops)


def _are_near(before: Rows, rows: Rows) -> bool:
    """Whether two perturbations share most of their changes."""
    shared = np.intersect1d(before, rows, assume_unique=True).size
    return bool(2 * shared > min(before.size, rows.size))
