"""The score that is explained: one number for each case, read from the model's raw answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxplain_server.models.model import Activation, OutputKind, OutputSpec


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """A weighted sum of outputs on one scale.

    Attributes:
        output: what the model answers.
        weights: (class index, weight) of every summand; for a scalar ((0, 1.0),). For one sigmoid output class 1 is the
            logit and class 0 its negative.
        probability: True: the scale is probability; False: logit (or raw where there is no activation).
        region: for a segmentation, the voxels that are averaged, (*spatial) of the output; None otherwise.
    """

    output: OutputSpec
    weights: tuple[tuple[int, float], ...]
    probability: bool = False
    region: npt.NDArray[np.bool_] | None = None

    def of(self, answers: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """Score every case of a batch.

        Args:
            answers: what the model gave at OutputSpec.score_name: (batch, classes), (batch, 1), (batch,) or
                (batch, classes, *spatial).

        Returns:
            (batch,) float64. Regions are summed in float64.
        """
        table = class_table(self.output, answers)
        if self.probability:
            table = probabilities(self.output, table)
        if self.output.kind is OutputKind.SEGMENTATION:
            region = self.region
            if region is None:
                raise ValueError("a segmentation score needs its region")
            columns = [table[:, index][:, region].mean(axis=1) for index, _ in self.weights]
        else:
            columns = [table[:, index] for index, _ in self.weights]
        total = np.zeros(table.shape[0], dtype=np.float64)
        for column, (_, weight) in zip(columns, self.weights, strict=True):
            total += weight * column
        return total


def class_table(output: OutputSpec, answers: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """Arrange raw answers as (batch, classes, ...) in float64; one sigmoid output z becomes the columns -z and z.

    A segmentation with one sigmoid channel likewise becomes two channels.
    """
    table = np.asarray(answers, dtype=np.float64)
    if output.kind is OutputKind.SEGMENTATION:
        one_sigmoid = len(output.classes) == 2 and table.shape[1] == 1
        return np.concatenate([-table, table], axis=1) if one_sigmoid else table
    table = table.reshape(table.shape[0], -1)
    return np.concatenate([-table, table], axis=1) if output.kind is OutputKind.SIGMOID else table


def probabilities(output: OutputSpec, table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Turn logits (batch, classes, ...) into probabilities by the model's own activation, in float64."""
    if output.activation is Activation.SOFTMAX:
        shifted = np.exp(table - table.max(axis=1, keepdims=True))
        normalised: npt.NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
        return normalised
    squashed: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(-table))
    return squashed
