"""Input times gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from google.protobuf.message import Message
from voxplain.v1 import method_pb2

from voxplain_server.engines.batched_scores import ask
from voxplain_server.engines.engine import Cancelled, Differentiable
from voxplain_server.engines.relu_rule import ReluRule
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.input_gradients import shared_input_gradients
from voxplain_server.methods.method import GradientMethod, Remark, Setting, Violation
from voxplain_server.methods.twin_remarks import twin_remarks
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits


class InputXGradient:
    """phi = x df/dx: the part of a linear score that a voxel carries. Equal to Captum's InputXGradient."""

    name = "input-x-gradient"
    summary = "Each voxel times its gradient."
    citation = "Shrikumar, Greenside, Shcherbina, Kundaje 2017, arXiv:1605.01713"
    assumptions: tuple[str, ...] = (
        "The score is nearly linear between zero and the case.",
        "Zero, after normalisation, means that nothing is there.",
    )
    signed = True
    shared_map = False
    needs_gradients = True

    def defaults(self, model: Model | None) -> method_pb2.InputXGradient:
        """It has no parameters."""
        return method_pb2.InputXGradient()

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """Nothing can be wrong."""
        return ()

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It needs the twin."""
        return twin_remarks(traits)

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """One backward pass."""
        return 1

    def attribute(
        self, setting: Setting, twin: Differentiable, *, advanced: Callable[[int], None], cancelled: Cancelled
    ) -> Estimate:
        """As GradientMethod.attribute: one map for each modality, (*spatial)."""
        ask(cancelled)
        gradients, made_now = shared_input_gradients(setting, twin, ReluRule.PLAIN)
        advanced(1)
        maps = tuple(
            volume.astype(np.float64) * gradient for volume, gradient in zip(setting.case.volumes, gradients, strict=True)
        )
        return Estimate(maps=maps, passes=int(made_now), saved=int(not made_now))


METHOD: GradientMethod = InputXGradient()
