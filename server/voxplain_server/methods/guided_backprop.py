"""Guided backpropagation."""

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
from voxplain_server.methods.twin_remarks import relu_remarks, twin_remarks
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits


class GuidedBackprop:
    """A ReLU whose input was positive passes max(g, 0) back, any other nothing. By Captum."""

    name = "guided-backprop"
    summary = "Gradient in which every ReLU passes positive gradients only."
    citation = "Springenberg, Dosovitskiy, Brox, Riedmiller 2015, arXiv:1412.6806"
    assumptions: tuple[str, ...] = (
        "All that is not linear in the model is ReLU or pooling; other activations pass their plain gradient.",
        "The map shows structure more than evidence: it may hardly depend on the class.",
    )
    signed = True
    shared_map = False
    needs_gradients = True

    def defaults(self, model: Model | None) -> method_pb2.GuidedBackprop:
        """It has no parameters."""
        return method_pb2.GuidedBackprop()

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """Nothing can be wrong."""
        return ()

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It needs the twin, and a ReLU to act on."""
        return [*twin_remarks(traits), *relu_remarks(traits)]

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """One backward pass."""
        return 1

    def attribute(
        self, setting: Setting, twin: Differentiable, *, advanced: Callable[[int], None], cancelled: Cancelled
    ) -> Estimate:
        """As GradientMethod.attribute: one map for each modality, (*spatial)."""
        ask(cancelled)
        gradients, made_now = shared_input_gradients(setting, twin, ReluRule.GUIDED)
        advanced(1)
        maps = tuple(gradient.astype(np.float64) for gradient in gradients)
        return Estimate(maps=maps, passes=int(made_now), saved=int(not made_now))


METHOD: GradientMethod = GuidedBackprop()
