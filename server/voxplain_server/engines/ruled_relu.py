"""ReLUs that pass gradients back by a rule chosen after the forward pass, and compute in place where nobody else reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from voxplain_server.engines.relu_rule import ReluRule

_FORGETS_ITS_OUTPUT = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.Linear)
"""Layers whose backward pass does not read what they gave: a ReLU may write over it."""


@dataclass(slots=True)
class RuleSwitch:
    """What the ReLUs of one twin do now.

    Attributes:
        recording: whether a forward pass is under way that is differentiated by rules; else they are torch's own ReLUs, which
            Captum's hooks may change.
        rule: for the backward pass under way.
    """

    recording: bool = False
    rule: ReluRule = ReluRule.PLAIN


def install_rules(twin: fx.GraphModule, switch: RuleSwitch) -> None:
    """Let every ReLU of a twin obey a switch. They stay nn.ReLU: Captum's DeepLIFT goes by the exact type."""
    for node in twin.graph.nodes:
        if node.op == "call_module" and type(relu := twin.get_submodule(node.target)) is nn.ReLU:
            relu.forward = _Ruled(switch, in_place=_alone(twin, node))  # type: ignore[assignment]


def _alone(twin: fx.GraphModule, node: fx.Node) -> bool:
    (source,) = node.all_input_nodes
    alone = source.op == "call_module" and len(source.users) == 1
    return alone and isinstance(twin.get_submodule(str(source.target)), _FORGETS_ITS_OUTPUT)


class _Ruled:
    def __init__(self, switch: RuleSwitch, *, in_place: bool) -> None:
        self._switch = switch
        self._in_place = in_place

    def __call__(self, value: Tensor) -> Tensor:
        if not self._switch.recording:
            return torch.relu(value)
        if not value.requires_grad:
            return torch.relu_(value) if self._in_place else torch.relu(value)
        # A leaf is somebody's own tensor, the output of a layer that is looked at.
        in_place = self._in_place and not value.is_leaf
        return _RuledRelu.apply(value, self._switch, in_place)  # type: ignore[no-untyped-call, no-any-return]


class _RuledRelu(torch.autograd.Function):
    """ReLU; its gradient goes by the rule that the switch holds at the time of the backward pass."""

    @staticmethod
    def forward(context: Any, value: Tensor, switch: RuleSwitch, in_place: bool) -> Tensor:
        if in_place:
            context.mark_dirty(value)
            output = torch.relu_(value)
        else:
            output = torch.relu(value)
        context.save_for_backward(output)
        context.switch = switch
        return output

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (output,) = context.saved_tensors
        rule = context.switch.rule
        if rule is ReluRule.DECONVOLUTION:
            return gradient.clamp(min=0), None, None
        passed: Tensor = torch.ops.aten.threshold_backward(gradient, output, 0)
        return (passed.clamp_(min=0) if rule is ReluRule.GUIDED else passed), None, None
