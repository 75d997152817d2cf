"""The head of a network, from the means over space to its answer, in float64.

A change of a few voxels moves a mean over a whole volume by little, often by less than the spacing of float32 around the mean.
So a mean is its unperturbed value plus what the changed box adds to it, and all behind it is computed in float64 as well: it
is a few small vectors, and costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain_server.engines.crop_layers import CropPlace
from voxplain_server.graph.locality import Locality, Step

_MEANS = frozenset({"GlobalAveragePool", "ReduceMean", "ReduceSum"})
_MOST_ELEMENTS = 1 << 16


@dataclass(frozen=True, slots=True)
class IncrementalHead:
    """Names of values.

    Attributes:
        means: those that are a mean or a sum over space; all of them are in `precise`.
        precise: those that are computed in float64.
    """

    means: frozenset[str]
    precise: frozenset[str]


def find_head(locality: Locality) -> IncrementalHead:
    """The means over space from which only small values lead to the output, and these values."""
    if locality.has_tail:
        return IncrementalHead(frozenset(), frozenset())
    small = [step for step in locality.steps if math.prod(locality.shapes[step.output]) <= _MOST_ELEMENTS]
    means = {step.output for step in small if is_mean(step, locality)}
    precise = set(means)
    for step in small:
        if all(operand.value in precise for operand in step.rule.operands):
            precise.add(step.output)
    while True:
        before = len(precise)
        for step in reversed(locality.steps):
            operands = {operand.value for operand in step.rule.operands}
            if step.output not in precise:
                # Who computes in float32 reads no float64.
                precise -= operands
            elif step.output not in means and not operands <= precise:
                precise.discard(step.output)
        if len(precise) == before:
            return IncrementalHead(frozenset(means & precise), frozenset(precise))


def is_mean(step: Step, locality: Locality) -> bool:
    """Whether a step is a mean or a sum over all axes behind the channels."""
    shape, made = locality.shapes[step.rule.operands[0].value], locality.shapes[step.output]
    over_space = len(shape) > 2 and len(made) > 1 and made[:2] == shape[:2] and math.prod(made[2:]) == 1
    return step.node.op in _MEANS and step.rule.rows and over_space


class SpatialMean:
    """A mean or a sum over space (a CropLayer).

    Args:
        step: it.
        locality: for the sizes.
    """

    def __init__(self, step: Step, locality: Locality) -> None:
        shape = locality.shapes[step.rule.operands[0].value]
        self._axes = tuple(range(2, len(shape)))
        self._elements = 1 if step.node.op == "ReduceSum" else math.prod(shape[2:])

    def __call__(self, crops: Sequence[Tensor], place: CropPlace) -> Tensor:
        """The mean of one crop that is the whole volume; or, of three, the last one plus what the first adds to the second.

        Args:
            crops: the whole volume; or a changed box, the same box unchanged, and the unchanged mean.
            place: of the mean.
        """
        total = crops[0].sum(self._axes, dtype=torch.float64)
        if len(crops) > 1:
            total = total - crops[1].sum(self._axes, dtype=torch.float64)
        mean = (total / self._elements).reshape(total.shape[0], *(int(edge) for edge in place.size[1:]))
        return mean if len(crops) == 1 else crops[2] + mean
