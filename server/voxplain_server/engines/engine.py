"""The seam between methods and whatever computes: two small Protocols.

What every Evaluator promises (tests/server/engines/test_engine_promises.py holds them to it):

- scores come back in the order of the perturbations, one float64 for each;
- the score of an empty perturbation equals the base score of the same engine within one float32 spacing;
- equal calls (same perturbations, same batch size, same threads) give equal bytes;
- a dense engine's rows do not depend on what else is in the call beyond the batch size: the last batch is filled up, not
  cut; one that recomputes what changes groups the whole call by shape, and another company moves a row by rounding only;
- it looks at `cancelled` between batches and raises Cancelled;
- memory does not grow with the number of perturbations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.models.case import Case
from voxplain_server.models.score import Score

if TYPE_CHECKING:
    import torch

    from voxplain_server.engines.gradient_pass import GradientPass

Cancelled = Callable[[], bool]
"""Asked between batches; True: stop now."""


class Evaluator(Protocol):
    """Scores perturbed cases."""

    @property
    def name(self) -> str:
        """Stable name that stands in plans and records, for example "onnxruntime-cpu"."""

    def answer(self, case: Case) -> npt.NDArray[np.float32]:
        """The model's raw answer on the unperturbed case at OutputSpec.score_name, batch axis of 1 included."""

    def scores(
        self,
        case: Case,
        score: Score,
        perturbations: Sequence[Perturbation],
        *,
        batch_size: int,
        cancelled: Cancelled,
    ) -> npt.NDArray[np.float64]:
        """Score perturbed cases, `batch_size` in one pass (1 where the model's batch is fixed).

        Returns:
            (len(perturbations),) float64.

        Raises:
            voxplain.errors.Cancelled: `cancelled()` became true; nothing is returned.
        """


class Differentiable(Protocol):
    """Gives the twin, wrapped so that gradients belong to volumes."""

    @property
    def name(self) -> str:
        """Stable name, for example "torch-cpu"."""

    @property
    def batched(self) -> bool:
        """Whether several cases may be stacked on axis 0; False: only one at a time."""

    def scored(self, score: Score) -> torch.nn.Module:
        """A module whose forward takes one tensor (batch, *spatial) for each modality and gives the score (batch,).

        Layout (channels, slices, repetition) happens inside, so a gradient with respect to an argument has the shape of a
        volume. Every non-linearity is a module of its own. Its parameters need no gradient.
        """

    def forward_pass(
        self,
        score: Score,
        volumes: Sequence[torch.Tensor],
        *,
        layers: Sequence[torch.nn.Module] = (),
        from_layers: bool = False,
    ) -> GradientPass:
        """Compute the score of one point so that it can be differentiated, by several rules if wanted.

        `layers` are submodules of `scored(score)` whose outputs and their gradients are wanted; `from_layers`: only these.
        """

    def stems(self) -> tuple[torch.nn.Module, ...]:
        """The convolutions through which all volumes pass, one for each input; none where some volume goes another way."""

    def through_stems(self, gradients: Sequence[torch.Tensor], volumes: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Bring gradients at the outputs of all stems to volumes of these shapes, (1, *spatial) each."""

    def tensors(self, volumes: Sequence[npt.NDArray[np.float32]]) -> tuple[torch.Tensor, ...]:
        """Volumes as the arguments of `scored`, (1, *spatial) each, on the engine's device and in its precision."""

    def layer(self, score: Score, value_name: str) -> torch.nn.Module:
        """The submodule of `scored(score)` that makes an ONNX value. Raises KeyError for an unknown one."""

    def modalities_of(self, value_name: str) -> tuple[int, ...]:
        """Indices of the modalities that an ONNX value depends on: its branch. Raises KeyError for an unknown one."""
