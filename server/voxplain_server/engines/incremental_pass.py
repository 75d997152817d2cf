"""One group of perturbations through the model: gather, compute, paste, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from voxplain_server.engines.activation_cache import ActivationCache, Patch
from voxplain_server.engines.box_copy import Edges
from voxplain_server.engines.crop_layers import CropLayer, CropPlace, build_layer
from voxplain_server.engines.crop_tensor import by_case, channels_last
from voxplain_server.engines.dirty_box import BoxTravel
from voxplain_server.engines.incremental_groups import BoxGroup
from voxplain_server.engines.incremental_head import IncrementalHead, SpatialMean
from voxplain_server.engines.incremental_tail import IncrementalTail
from voxplain_server.graph.box_reach import Corners
from voxplain_server.graph.locality import Locality, Step
from voxplain_server.graph.twin import Twin

_FLOAT_BYTES = 4
_SMALL_FRONTIER = 64 << 10
"""Bytes of a perturbation in front of the tail up to which tails wait for one another."""


class IncrementalPass:
    """The steps of one graph, ready to run on boxes.

    Args:
        twin: its twin, up to the value that is asked for.
        locality: of the graph.
        head: of the graph.
        travel: carries boxes through it.
        batched: whether axis 0 of the model's inputs is a batch.
    """

    def __init__(self, twin: Twin, locality: Locality, head: IncrementalHead, travel: BoxTravel, *, batched: bool) -> None:
        self._locality = locality
        self._travel = travel
        self._head = head
        self._layers = [self._layer(step, twin) for step in locality.steps]
        self._tail = IncrementalTail(locality, twin, batched=batched) if locality.has_tail else None
        self._last_use = {
            operand.value: number for number, step in enumerate(locality.steps) for operand in step.rule.operands
        } | dict.fromkeys(locality.frontier, len(locality.steps))

    @property
    def tails_wait(self) -> bool:
        """Whether `finish` is better called for many perturbations at once: a classifier reads its weights for every call."""
        elements = sum(int(np.prod(self._locality.shapes[name])) for name in self._locality.frontier)
        return self._tail is not None and self._tail.batched and elements * _FLOAT_BYTES <= _SMALL_FRONTIER

    @property
    def kept(self) -> frozenset[str]:
        """Values that `run` wants to find in its cache."""
        return self._locality.kept | self._head.means

    def complete(self, values: Mapping[str, Tensor]) -> ActivationCache:
        """The cache for one case: what the twin computed, with the head in float64 in its place."""
        found = {name: channels_last(tensor) for name, tensor in values.items() if name not in self._head.precise}
        for step, layer in zip(self._locality.steps, self._layers, strict=True):
            if step.output in self._head.precise:
                size = np.array(self._locality.shapes[step.output], np.int64)
                starts = tuple(np.zeros((1, len(axes)), np.int64) for axes in (operand.axes for operand in step.rule.operands))
                place = CropPlace(1, np.zeros((1, size.size), np.int64), size, starts)
                found[step.output] = layer([found[operand.value] for operand in step.rule.operands], place)
        return ActivationCache(found)

    def run(self, group: BoxGroup, cache: ActivationCache, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Evaluate a group up to the frontier.

        Args:
            group: its boxes.
            cache: the unperturbed values.
            inputs: the changed inputs, cut to the group's boxes and stacked.

        Returns:
            The values of the frontier, whole, each (perturbations * rows, ...): for `finish`.
        """
        count = group.members.size
        patches = {name: self._patch(name, group, elements) for name, elements in inputs.items()}
        for name, patch in patches.items():
            cache.absorb(name, patch)
        for number, (step, layer) in enumerate(zip(self._locality.steps, self._layers, strict=True)):
            if self._travel.kin[step.output] in group.sizes:
                place, crops = self._gather(step, group, cache, patches)
                patches[step.output] = self._patch(step.output, group, layer(crops, place))
                cache.absorb(step.output, patches[step.output])
            for operand in step.rule.operands:
                if self._last_use[operand.value] == number:
                    patches.pop(operand.value, None)
        return {name: self._paste(name, count, cache, patches.get(name)) for name in self._locality.frontier}

    def finish(self, whole: Mapping[str, Tensor], count: int) -> Tensor:
        """Evaluate what stands behind the frontier.

        Args:
            whole: as `run` gives it, or several of these one after another.
            count: perturbations.

        Returns:
            (perturbations, *output) the output of each, its own axis 0 kept.
        """
        if self._tail is None:
            return by_case(whole[self._locality.output], count)
        return self._run_tail(self._tail, whole, count)

    def _gather(
        self, step: Step, group: BoxGroup, cache: ActivationCache, patches: Mapping[str, Patch]
    ) -> tuple[CropPlace, list[Tensor]]:
        kin = self._travel.kin[step.output]
        start, size = group.starts[kin], group.sizes[kin]
        if kin != step.output:
            # Made from its own place in one operand: nothing is gathered.
            return CropPlace(group.members.size, start, size, (start,)), [patches[step.rule.operands[0].value].elements]
        if step.output in self._head.means and not cache.holds_changes:
            return CropPlace(group.members.size, start, size, ()), self._mean_crops(step, start, size, cache, patches)
        crops, crop_starts = [], []
        for operand, reach in zip(step.rule.operands, self._travel.reaches[step.output], strict=True):
            needed, edges = reach.needed(start, size)
            crops.append(cache.crop(operand.value, needed, edges, fill=operand.fill, patch=patches.get(operand.value)))
            crop_starts.append(needed)
        return CropPlace(group.members.size, start, size, tuple(crop_starts)), crops

    def _mean_crops(
        self, step: Step, start: Corners, size: Edges, cache: ActivationCache, patches: Mapping[str, Patch]
    ) -> list[Tensor]:
        """What the mean over a volume needs of it: the changed box, the same box unchanged, and the unchanged mean."""
        source = step.rule.operands[0].value
        changed = patches[source]
        unchanged = cache.crop(source, changed.start, changed.size)
        return [changed.elements, unchanged, cache.crop(step.output, start, size)]

    def _layer(self, step: Step, twin: Twin) -> CropLayer:
        if step.output in self._head.means:
            return SpatialMean(step, self._locality)
        return build_layer(step, self._locality, twin, precise=step.output in self._head.precise)

    def _patch(self, name: str, group: BoxGroup, elements: Tensor) -> Patch:
        kin = self._travel.kin[name]
        return Patch(elements, group.starts[kin], group.sizes[kin])

    def _paste(self, name: str, count: int, cache: ActivationCache, patch: Patch | None) -> Tensor:
        shape = np.array(self._locality.shapes[name], np.int64)
        return cache.crop(name, np.zeros((count, shape.size), np.int64), shape, patch=patch)

    def _run_tail(self, tail: IncrementalTail, whole: Mapping[str, Tensor], count: int) -> Tensor:
        if tail.batched:
            return by_case(tail.run(whole, count), count)
        cases = {name: by_case(tensor, count) for name, tensor in whole.items()}
        answers = [tail.run({name: each[number] for name, each in cases.items()}, 1) for number in range(count)]
        return torch.stack(answers)
