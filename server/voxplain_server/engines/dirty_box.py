"""Which box of every value a perturbation dirties, and how many operations recomputing them takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxplain_server.graph.box_reach import Boxes, BoxReach, smallest_common
from voxplain_server.graph.locality import Locality, Step


@dataclass(frozen=True, slots=True, eq=False)
class DirtyBoxes:
    """Boxes of many perturbations.

    Attributes:
        by_value: for each value that any of them changes, its boxes; a value has them under the name of its kin.
        count: perturbations.
    """

    by_value: Mapping[str, Boxes]
    count: int


class BoxTravel:
    """Carries boxes from the inputs through all steps. Values whose boxes are always equal are kin: one of them has them.

    Args:
        locality: the steps.
        means: values that are a mean over a volume, of which only what the changed box adds is computed.
    """

    def __init__(self, locality: Locality, means: frozenset[str]) -> None:
        self.locality = locality
        self.reaches: dict[str, tuple[BoxReach, ...]] = {}
        self.kin: dict[str, str] = {name: name for name in locality.inputs}
        self._weights: dict[str, float] = {}
        whole_channels: set[str] = set()
        for step in locality.steps:
            made = locality.shapes[step.output]
            self.reaches[step.output] = tuple(
                BoxReach(operand.axes, locality.shapes[operand.value], made) for operand in step.rule.operands
            )
            kin = self._kin_of(step, whole_channels)
            self.kin[step.output] = kin
            paid, per_element = (
                (self.kin[step.rule.operands[0].value], 1.0) if step.output in means else (kin, step.flops_per_element)
            )
            self._weights[paid] = self._weights.get(paid, 0.0) + per_element
            if step.rule.has_whole_channels:
                whole_channels.add(step.output)

    def travel(self, inputs: Mapping[str, Boxes], count: int) -> DirtyBoxes:
        """Carry the boxes of `count` perturbations from the inputs that any of them changes."""
        found: dict[str, Boxes] = {name: boxes for name, boxes in inputs.items() if boxes.filled.any()}
        for step in self.locality.steps:
            if self.kin[step.output] != step.output:
                continue
            boxes: Boxes | None = None
            for operand, reach in zip(step.rule.operands, self.reaches[step.output], strict=True):
                source = found.get(self.kin[operand.value])
                if source is None:
                    continue
                reached = reach.dirty(source)
                there = (source.filled & reached.filled)[:, None]
                reached = Boxes(np.where(there, reached.start, 0), np.where(there, reached.stop, 0))
                boxes = reached if boxes is None else smallest_common(boxes, reached)
            if boxes is not None and boxes.filled.any():
                found[step.output] = boxes
        return DirtyBoxes(found, count)

    def flops(self, sizes: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
        """Operations for boxes of the given edges, (boxes, axes) for each value; an edge of 0 is no box."""
        total: npt.NDArray[np.float64] | None = None
        for value, edges in sizes.items():
            if value in self._weights:
                part = self._weights[value] * edges.prod(axis=1)
                total = part if total is None else total + part
        some = next(iter(sizes.values()), np.zeros((0, 0)))
        return np.zeros(len(some)) if total is None else total

    def work(self, sizes: Mapping[str, npt.NDArray[np.int64]]) -> float:
        """Operations for one perturbation with boxes of the given edges, (axes,) for each value; never 0."""
        return float(self.flops({value: size[None] for value, size in sizes.items()})[0]) + self.locality.tail_flops + 1.0

    def elements(self, sizes: Mapping[str, npt.NDArray[np.int64]]) -> int:
        """About how many elements are in memory at one time for one perturbation with boxes of these edges."""
        held = largest = 0
        for step in self.locality.steps:
            size = sizes.get(self.kin[step.output])
            if size is not None:
                held += int(size.prod())
                none = np.zeros((1, size.size), np.int64)
                largest = max(largest, sum(int(reach.needed(none, size)[1].prod()) for reach in self.reaches[step.output]))
        return held + largest + sum(math.prod(self.locality.shapes[name]) for name in self.locality.frontier)

    def count_flops(self, boxes: DirtyBoxes) -> npt.NDArray[np.float64]:
        """(count,) operations for recomputing every dirty box, and the tail where it is reached."""
        total = np.zeros(boxes.count)
        if boxes.by_value:
            total += self.flops({value: each.size for value, each in boxes.by_value.items()})
        return np.asarray(total + self.locality.tail_flops * self.reach_end(boxes))

    def reach_end(self, boxes: DirtyBoxes) -> npt.NDArray[np.bool_]:
        """(count,) which perturbations change anything of what the tail reads."""
        reached = np.zeros(boxes.count, np.bool_)
        for value in self.locality.frontier:
            found = boxes.by_value.get(self.kin[value])
            if found is not None:
                reached |= found.filled
        return reached

    def _kin_of(self, step: Step, whole_channels: set[str]) -> str:
        source = step.rule.operands[0].value
        same = self.locality.shapes[source] == self.locality.shapes[step.output]
        return self.kin[source] if step.in_place and same and source in whole_channels else step.output
