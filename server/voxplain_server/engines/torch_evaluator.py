"""Full forward passes by the twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from voxplain_server.engines.batch_buffer import BatchBuffer
from voxplain_server.engines.batched_scores import batched_scores
from voxplain_server.engines.device_buffer import DeviceBuffer
from voxplain_server.engines.engine import Cancelled
from voxplain_server.engines.input_assembly import assemble_tensors
from voxplain_server.engines.lean_forward import lean_forward
from voxplain_server.engines.memory_format import channels_last
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.engines.torch_engine import placed_twin
from voxplain_server.models.case import Case
from voxplain_server.models.model import Model
from voxplain_server.models.score import Score


class TorchEvaluator:
    """Evaluates perturbed cases by the twin (an Evaluator), in float32 or float64.

    Args:
        twin: takes the model's inputs in the graph's order and gives OutputSpec.score_name; it is moved, not copied.
        model: the bundle's description.
        device: "cpu", "cuda" or a torch device.
        dtype: what it computes in.
        threads: compute threads of this whole process; None leaves them.
    """

    def __init__(
        self,
        twin: fx.GraphModule,
        model: Model,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        threads: int | None = None,
    ) -> None:
        self._model = model
        self._device = torch.device(device)
        self._dtype = dtype
        self._twin = lean_forward(placed_twin(twin, device=self._device, dtype=dtype, threads=threads))

    @property
    def name(self) -> str:
        """Stands in plans and records: "torch-cpu" or "torch-cuda"."""
        return f"torch-{self._device.type}"

    def answer(self, case: Case) -> npt.NDArray[np.float32]:
        """The raw answer on the unperturbed case, alone in its batch: as Score.of takes it."""
        return self._answer(case).astype(np.float32)

    def scores(
        self,
        case: Case,
        score: Score,
        perturbations: Sequence[Perturbation],
        *,
        batch_size: int,
        cancelled: Cancelled,
    ) -> npt.NDArray[np.float64]:
        """As Evaluator.scores. The batch is the only memory that grows with `batch_size`."""
        size = batch_size if self._model.batched else 1
        rows, inputs = self._rows(case, size)
        return batched_scores(
            case,
            perturbations,
            rows=rows,
            batch_size=size,
            score_rows=lambda: score.of(self._run(inputs)),
            score_base=lambda: score.of(self._answer(case)),
            cancelled=cancelled,
        )

    def _answer(self, case: Case) -> npt.NDArray[Any]:
        volumes = [torch.tensor(volume, device=self._device, dtype=self._dtype)[None] for volume in case.volumes]
        return self._run(assemble_tensors(self._model, volumes))

    def _rows(self, case: Case, batch_size: int) -> tuple[BatchBuffer | DeviceBuffer, tuple[Tensor, ...]]:
        if self._device.type != "cpu":
            kinds = [self._dtype] * len(self._model.inputs)
            sent = DeviceBuffer(case, batch_size=batch_size, dtypes=kinds, device=self._device)
            return sent, sent.inputs
        kind = torch.empty(0, dtype=self._dtype).numpy().dtype
        rows = BatchBuffer(case, batch_size=batch_size, dtypes=[kind] * len(self._model.inputs))
        # Tensors over the same memory: what a perturbation writes, the twin reads.
        return rows, tuple(torch.from_numpy(array) for array in rows.inputs)

    def _run(self, inputs: Sequence[Tensor]) -> npt.NDArray[Any]:
        with torch.inference_mode():
            answers: Tensor = self._twin(*[channels_last(tensor) for tensor in inputs])
        table: npt.NDArray[Any] = answers.cpu().numpy()
        return table if self._model.output.has_batch_axis else table[None]
