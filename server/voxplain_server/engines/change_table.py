"""All changes that the perturbations of one call are made of, each looked at once however many perturbations share it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from voxplain_server.engines.input_change import InputChange, InputLayout, find_change
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.features.region import Region
from voxplain_server.graph.box_reach import Boxes
from voxplain_server.models.case import Volumes

Rows = npt.NDArray[np.int64]
"""Numbers of changes in a table, ascending."""


class ChangeTable:
    """Changes by number.

    Args:
        layout: of the model's inputs.
        case: the unperturbed volumes.
        shapes: of the inputs.
    """

    def __init__(self, layout: InputLayout, case: Volumes, shapes: Sequence[tuple[int, ...]]) -> None:
        self._layout, self._shapes, self.case = layout, shapes, case
        self._known: dict[tuple[int, int], int | None] = {}
        # What a number belongs to must live as long as its identity is used.
        self._alive: list[tuple[Region, Volumes]] = []
        self.changes: list[InputChange] = []
        self.sources: list[Volumes] = []
        self._inputs: list[int] = []
        self._starts: list[list[int]] = []
        self._stops: list[list[int]] = []

    def __len__(self) -> int:
        """Regions looked at so far."""
        return len(self._alive)

    def rows(self, perturbation: Perturbation) -> Rows:
        """The changes that a perturbation is made of; none where it changes nothing."""
        found = (self._row(region, perturbation.source) for region in perturbation.regions)
        return np.array(sorted(row for row in found if row is not None), np.int64)

    def boxes(self, rows: Sequence[Rows]) -> dict[str, Boxes]:
        """For each input the smallest boxes that hold the changes of every perturbation."""
        owners = np.repeat(np.arange(len(rows)), [each.size for each in rows])
        numbers = np.concatenate([*rows, np.zeros(0, np.int64)])
        inputs = np.array(self._inputs, np.int64)[numbers] if numbers.size else numbers
        found = {}
        for place, (name, shape) in enumerate(zip(self._layout.names, self._shapes, strict=True)):
            start = np.repeat(np.array([shape], np.int64), len(rows), axis=0)
            stop = np.zeros_like(start)
            here = inputs == place
            if here.any():
                np.minimum.at(start, owners[here], np.array([self._starts[number] for number in numbers[here]], np.int64))
                np.maximum.at(stop, owners[here], np.array([self._stops[number] for number in numbers[here]], np.int64))
            found[name] = Boxes(start, stop)
        return found

    def are_apart(self, rows: Rows) -> bool:
        """Whether no voxel belongs to two of these changes, so that each can be undone by itself."""
        seen = [np.zeros(volume.shape, np.bool_) for volume in self.case]
        for number in rows:
            change = self.changes[int(number)]
            flags = seen[change.modality]
            if change.indices is None:
                if flags[change.box].any():
                    return False
                flags[change.box] = True
            else:
                flat = flags.reshape(-1)
                if flat[change.indices].any():
                    return False
                flat[change.indices] = True
        return True

    def _row(self, region: Region, source: Volumes) -> int | None:
        key = (id(region), id(source))
        if key not in self._known:
            self._alive.append((region, source))
            change = find_change(region, source, self.case)
            self._known[key] = None if change is None else self._add(change, source)
        return self._known[key]

    def _add(self, change: InputChange, source: Volumes) -> int:
        place, start, stop = self._layout.box(change, self._shapes)
        self.changes.append(change)
        self.sources.append(source)
        self._inputs.append(place)
        self._starts.append(start)
        self._stops.append(stop)
        return len(self.changes) - 1
