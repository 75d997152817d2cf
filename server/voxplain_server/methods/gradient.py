"""Plain gradient (saliency)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from google.protobuf.message import Message
from voxplain.v1 import method_pb2

from voxplain_server.engines.batched_scores import ask
from voxplain_server.engines.engine import Cancelled, Differentiable
from voxplain_server.engines.relu_rule import ReluRule
from voxplain_server.methods.checked_cast import checked_cast
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.input_gradients import shared_input_gradients
from voxplain_server.methods.method import GradientMethod, Remark, Setting, Violation
from voxplain_server.methods.twin_remarks import twin_remarks
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits


class Gradient:
    """phi = df/dx at the case: how the score moves when a voxel brightens a little."""

    name = "gradient"
    summary = "Gradient of the score with respect to every voxel."
    citation = "Simonyan, Vedaldi, Zisserman 2014, arXiv:1312.6034"
    assumptions: tuple[str, ...] = ("The score is nearly linear around the case.",)
    signed = True
    shared_map = False
    needs_gradients = True

    def defaults(self, model: Model | None) -> method_pb2.Gradient:
        """Signed."""
        return method_pb2.Gradient(absolute=False)

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
        """As GradientMethod.attribute: the gradient of each modality, (*spatial)."""
        ask(cancelled)
        gradients, made_now = shared_input_gradients(setting, twin, ReluRule.PLAIN)
        advanced(1)
        absolute = checked_cast(setting.params, method_pb2.Gradient).absolute
        maps = tuple(gradient.astype(np.float64) for gradient in gradients)
        return Estimate(
            maps=tuple(np.abs(values) for values in maps) if absolute else maps,
            passes=int(made_now),
            saved=int(not made_now),
            signed=not absolute,
        )


METHOD: GradientMethod = Gradient()
