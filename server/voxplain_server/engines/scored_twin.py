"""The twin from volumes to one score, so that a gradient belongs to a volume."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from voxplain_server.engines.input_assembly import assemble_tensors
from voxplain_server.engines.memory_format import channels_last
from voxplain_server.models.model import Activation, Model, OutputKind
from voxplain_server.models.score import Score


class ScoredTwin(nn.Module):
    """Takes (batch, *spatial) for each modality and gives the score of every case, (batch,) float64.

    The same arithmetic as Score.of: class table, activation where the scale is probability, region mean, weighted sum, all
    in float64, whatever the twin computes in. Its only non-linear step is the final softmax or sigmoid, a module of its own.

    Args:
        twin: takes the model's inputs and gives the value OutputSpec.score_name.
        model: says how volumes are laid out.
        score: what is explained.

    Raises:
        ValueError: a segmentation score without its region.
    """

    _region: Tensor | None

    def __init__(self, twin: nn.Module, model: Model, score: Score) -> None:
        super().__init__()
        if model.output.kind is OutputKind.SEGMENTATION and score.region is None:
            raise ValueError("a segmentation score needs its region")
        self.twin = twin
        self._model = model
        self._weights = score.weights
        self.activation: nn.Module | None = None
        if score.probability:
            softmax = score.output.activation is Activation.SOFTMAX
            self.activation = nn.Softmax(dim=1) if softmax else nn.Sigmoid()
        region = None if score.region is None else torch.from_numpy(np.flatnonzero(score.region))
        self.register_buffer("_region", region)

    def forward(self, *volumes: Tensor) -> Tensor:
        """Score a batch: (batch, *spatial) for each modality, (batch,) float64."""
        inputs = [channels_last(tensor) for tensor in assemble_tensors(self._model, volumes)]
        table = self._class_table(self.twin(*inputs).double())
        if self.activation is not None:
            table = self.activation(table)
        columns = [weight * self._column(table, index) for index, weight in self._weights]
        total = columns[0]
        for column in columns[1:]:
            total = total + column
        return total

    def _class_table(self, answers: Tensor) -> Tensor:
        output = self._model.output
        table = answers if output.has_batch_axis else answers[None]
        if output.kind is OutputKind.SEGMENTATION:
            one_sigmoid = len(output.classes) == 2 and table.shape[1] == 1
            return torch.cat([-table, table], dim=1) if one_sigmoid else table
        table = table.reshape(table.shape[0], -1)
        return torch.cat([-table, table], dim=1) if output.kind is OutputKind.SIGMOID else table

    def _column(self, table: Tensor, index: int) -> Tensor:
        column = table[:, index]
        return column if self._region is None else column.flatten(1)[:, self._region].mean(dim=1)
