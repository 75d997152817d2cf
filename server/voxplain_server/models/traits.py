"""What checking a model's graph has shown: which methods can work on it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from voxplain_server.models.engine_choice import EngineChoice
from voxplain_server.models.signature import Signature


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """Facts about the graph that decide which methods work.

    Attributes:
        unsupported_operators: ONNX operators that the twin cannot read; not empty: there is no twin.
        twin_parity: largest relative difference between twin and ONNX Runtime on probe inputs; None without a twin.
        has_relu: whether guided backpropagation has something to act on.
        cam_layers: every ONNX value that Grad-CAM could read, in the graph's order.
        default_cam_layers: those it reads by default, one for each branch; empty: no convolution layer.
        deep_lift_rule_missing: non-linear operators for which DeepLIFT falls back to the gradient.
        has_max_pool: whether the graph pools by maxima.
        evaluation_seconds: measured time of one evaluation on this host.
        evaluation_voxels: voxels of all modalities of the case on which it was measured; 0: not known.
        gradient_seconds: measured time of one forward and backward pass of the twin on that case; 0: not measured.
        slic_seconds_per_voxel: measured time of making supervoxels on this host, for each voxel that is not zero.
        background_cases: background cases held by the bundle.
        remote: another server holds the model: nothing is known of its graph, and there is no twin.
        engine_choice: which engine evaluates perturbed cases; None: nobody chose, whole passes do.
        signature: what the file reads and answers; empty where there is no file of ours to run.
    """

    unsupported_operators: tuple[str, ...] = ()
    twin_parity: float | None = None
    has_relu: bool = False
    cam_layers: tuple[str, ...] = ()
    default_cam_layers: tuple[str, ...] = ()
    deep_lift_rule_missing: tuple[str, ...] = ()
    has_max_pool: bool = False
    evaluation_seconds: float = 0.0
    evaluation_voxels: int = 0
    gradient_seconds: float = 0.0
    slic_seconds_per_voxel: float = 0.0
    background_cases: int = 0
    remote: bool = False
    engine_choice: EngineChoice | None = None
    signature: Signature = field(default_factory=Signature)

    PARITY_BOUND: ClassVar[float] = 1e-4

    def evaluation_seconds_of(self, shapes: Iterable[tuple[int, ...]]) -> float:
        """Estimated time of one evaluation of a case with modalities of these shapes: work grows as the voxels do."""
        return self.evaluation_seconds * self.growth(shapes)

    def whole_pass_seconds_of(self, shapes: Iterable[tuple[int, ...]]) -> float:
        """The same for one evaluation among many by the engine of whole passes that was chosen."""
        choice = self.engine_choice
        measured = choice.dense_seconds if choice is not None and choice.dense_seconds else self.evaluation_seconds
        return measured * self.growth(shapes)

    def growth(self, shapes: Iterable[tuple[int, ...]]) -> float:
        """Voxels of modalities of these shapes over those of the case that was measured on."""
        return sum(math.prod(shape) for shape in shapes) / self.evaluation_voxels if self.evaluation_voxels else 1.0

    @property
    def has_twin(self) -> bool:
        """Whether gradient methods can be trusted to explain the file that is served."""
        return self.twin_parity is not None and self.twin_parity <= self.PARITY_BOUND
