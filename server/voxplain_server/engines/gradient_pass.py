"""One forward pass of a case, differentiated as often as asked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from voxplain_server.engines.relu_rule import ReluRule
from voxplain_server.engines.ruled_relu import RuleSwitch


class GradientPass:
    """A forward pass that keeps what backward passes need, until it is let go.

    Args:
        scored: from volumes (1, *spatial) to the score (1,), its ReLUs obeying `switch`.
        switch: of these ReLUs.
        volumes: the point; left without gradients.
        layers: modules of `scored` that are used once, whose output and its gradient are wanted.
        from_layers: the graph begins at `layers`: what lies before them keeps nothing, and only `layer_gradients` works.
    """

    def __init__(
        self,
        scored: nn.Module,
        switch: RuleSwitch,
        volumes: Sequence[Tensor],
        *,
        layers: Sequence[nn.Module] = (),
        from_layers: bool = False,
    ) -> None:
        self._switch = switch
        self._point = tuple(volume.detach().clone().requires_grad_(not from_layers) for volume in volumes)
        self._captured: dict[nn.Module, Tensor] = {}
        self._from_layers = from_layers
        with ExitStack() as hooks, torch.enable_grad():
            for layer in dict.fromkeys(layers):
                hooks.callback(layer.register_forward_hook(self._capture).remove)
            switch.recording = True
            hooks.callback(setattr, switch, "recording", False)
            self._score: Tensor = scored(*self._point)[0]
        self.score = float(self._score.detach())
        self.outputs = tuple(self._captured[layer].detach() for layer in layers)
        self._layers = tuple(self._captured[layer] for layer in layers)

    def gradients(self, rule: ReluRule = ReluRule.PLAIN) -> tuple[Tensor, ...]:
        """The gradient of the score by a rule, (1, *spatial) for each modality."""
        return self._backward(self._point, rule)

    def layer_gradients(self) -> tuple[Tensor, ...]:
        """The gradient of the score at the output of each layer."""
        return self._backward(self._layers, ReluRule.PLAIN)

    def _backward(self, points: tuple[Tensor, ...], rule: ReluRule) -> tuple[Tensor, ...]:
        self._switch.rule = rule
        return torch.autograd.grad(self._score, points, retain_graph=True)

    def _capture(self, module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        self._captured[module] = output.detach().requires_grad_() if self._from_layers else output
        # What follows may write over what it gets.
        return self._captured[module] if self._from_layers else output.clone()
