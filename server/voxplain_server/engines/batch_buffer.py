"""One batch of model inputs that holds the unperturbed case in every row; only what changes is written and restored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from voxplain_server.engines.input_assembly import assemble, places
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.models.case import Case


class Rows(Protocol):
    """Rows of model inputs, wherever they lie."""

    def write(self, row: int, perturbation: Perturbation) -> None:
        """Change one row that holds the unperturbed case."""

    def restore(self, row: int, perturbation: Perturbation) -> None:
        """Undo `write`, copying only what it changed."""


class BatchBuffer:
    """Rows of model inputs in main memory.

    Attributes:
        inputs: one C-contiguous array for each ONNX input, laid out as InputSpec says. Their bytes are
            batch_size x one case, however many perturbations pass through.
    """

    def __init__(self, case: Case, *, batch_size: int, dtypes: Sequence[npt.DTypeLike]) -> None:
        self._case = case
        self._places = places(case.model)
        self._copies = max(len(place.channels) for place in self._places)
        self.inputs: tuple[npt.NDArray[Any], ...] = assemble(case.model, case.volumes, batch=batch_size, dtypes=dtypes)

    def write(self, row: int, perturbation: Perturbation) -> None:
        """Change one row that holds the unperturbed case."""
        for copy in range(self._copies):
            perturbation.write(self._views(row, copy))

    def restore(self, row: int, perturbation: Perturbation) -> None:
        """Undo `write`, copying only what it changed."""
        for copy in range(self._copies):
            perturbation.restore(self._views(row, copy), self._case.volumes)

    def _views(self, row: int, copy: int) -> tuple[npt.NDArray[np.float32], ...]:
        return tuple(
            place.view(self.inputs[place.input], row=row, channel=place.channels[copy % len(place.channels)])
            for place in self._places
        )
