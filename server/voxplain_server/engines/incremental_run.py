"""Carrying out one plan: groups and walks, each on whatever thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from voxplain import errors

from voxplain_server.engines.activation_cache import ActivationCache, WalkCache
from voxplain_server.engines.change_table import Rows
from voxplain_server.engines.crop_tensor import by_case
from voxplain_server.engines.dirty_box import BoxTravel
from voxplain_server.engines.incremental_groups import BoxGroup, alone
from voxplain_server.engines.incremental_pass import IncrementalPass
from voxplain_server.engines.incremental_plan import IncrementalPlan
from voxplain_server.engines.incremental_walks import Walk
from voxplain_server.engines.input_change import InputLayout


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """A task that is computed up to the tail of the graph, or to its end.

    Attributes:
        members: the perturbations, in order.
        whole: the values of the frontier, (perturbations * rows, ...) each; empty where the answers are there.
        answers: (perturbations, *output); None where they wait.
    """

    members: list[int]
    whole: Mapping[str, Tensor]
    answers: Tensor | None


class IncrementalRun:
    """The tasks of one call. They may run side by side.

    Args:
        plan: what is to be evaluated.
        steps: how one group goes through the model.
        travel: carries boxes.
        layout: of the model's inputs.
        cache: the unperturbed values.
        host_inputs: the unperturbed inputs in main memory.
    """

    def __init__(
        self,
        plan: IncrementalPlan,
        steps: IncrementalPass,
        travel: BoxTravel,
        layout: InputLayout,
        *,
        cache: ActivationCache,
        host_inputs: ActivationCache,
    ) -> None:
        self._plan, self._steps, self._travel, self._layout = plan, steps, travel, layout
        self._cache, self._host_inputs = cache, host_inputs
        self._free: list[WalkCache] = []
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let every walk end at its next step."""
        self._stopped.set()

    def begin(self, task: BoxGroup | Walk) -> Begun:
        """Compute a task, and its answers where nothing is gained by waiting for other tasks.

        Raises:
            voxplain.errors.Cancelled: `stop` was called.
        """
        with torch.inference_mode():
            if isinstance(task, Walk):
                return self._walk(task)
            rows = [self._plan.rows[member] for member in task.members.tolist()]
            whole = self._steps.run(task, self._cache, self._changed_inputs(self._host_inputs, task, rows))
            return self._begun(task.members.tolist(), whole)

    def finish(self, begun: Sequence[Begun]) -> Tensor:
        """(perturbations, *output) the answers to tasks whose answers waited, in their order."""
        with torch.inference_mode():
            whole = {name: torch.cat([each.whole[name] for each in begun]) for name in begun[0].whole}
            return self._steps.finish(whole, sum(len(each.members) for each in begun))

    def _begun(self, members: list[int], whole: dict[str, Tensor]) -> Begun:
        if self._steps.tails_wait:
            return Begun(members, whole, None)
        return Begun(members, {}, self._steps.finish(whole, len(members)))

    def _walk(self, walk: Walk) -> Begun:
        cache = self._free.pop() if self._free else WalkCache(self._cache)
        before: Rows = np.zeros(0, np.int64)
        steps = []
        for number in walk.order:
            if self._stopped.is_set():
                raise errors.Cancelled("CANCELLED", "the explanation was cancelled")
            rows = np.setxor1d(before, self._plan.rows[number], assume_unique=True)
            step = alone(self._travel.travel(self._plan.table.boxes([rows]), 1), 0)
            whole = self._steps.run(step, cache, self._changed_inputs(cache, step, [rows], undone=before))
            steps.append(self._begun([number], whole))
            before = self._plan.rows[number]
        cache.forget()
        self._free.append(cache)
        members = list(walk.order)
        if self._steps.tails_wait:
            return Begun(members, {name: torch.cat([each.whole[name] for each in steps]) for name in steps[0].whole}, None)
        return Begun(members, {}, torch.cat([each.answers for each in steps if each.answers is not None]))

    def _changed_inputs(
        self, cache: ActivationCache, group: BoxGroup, rows: Sequence[Rows], undone: Rows | None = None
    ) -> dict[str, Tensor]:
        """The boxes of the inputs with the changes `rows` of each perturbation written; those in `undone` are taken back."""
        table, count = self._plan.table, group.members.size
        names = [name if name in group.sizes else None for name in self._layout.names]
        crops = {name: cache.crop(name, group.starts[name], group.sizes[name]) for name in names if name is not None}
        cases = {name: by_case(crop, count) for name, crop in crops.items()}
        back = frozenset(() if undone is None else undone.tolist())
        for place, numbers in enumerate(rows):
            arrays = [None if name is None else cases[name][place] for name in names]
            origins = [np.zeros(0, np.int64) if name is None else group.starts[name][place] for name in names]
            for number in numbers.tolist():
                source = table.case if number in back else table.sources[number]
                self._layout.write(arrays, origins, table.changes[number], source)
        return {name: crop.to(self._cache[name].device, non_blocking=True) for name, crop in crops.items()}
