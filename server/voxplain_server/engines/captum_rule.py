"""DeepLIFT by the rules of Captum 0.9, with the memory of two forward passes and one backward pass.

Captum stacks case and reference, clones what every non-linearity reads and gives, and differentiates both halves. Its hooks
replace the gradient of a tensor by grad_output * m where the rule's dx counts, grad_output being what came back before any
other hook changed it. So where a max pooling reads what another rule gives, as in Conv - ReLU - MaxPool, its rule is lost:
where the first rule counts it asks for the gradient from before, and where it does not, dx is zero for the pooling as well,
which passes its plain gradient. Then nothing joins the two halves, and the gradient of the reference's is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from captum.attr import DeepLift
from torch import Tensor, fx, nn

from voxplain_server.engines.rescale_rule import UnevenRows, multipliers

_VOXELWISE = (nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus)
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_RULED = (*_VOXELWISE, *_MAX_POOLS, nn.Softmax)
"""What Captum has rules for, by exact type."""

Attributions = tuple[tuple[Tensor, ...], float, float]


def captum_attributions(scored: nn.Module, case: Sequence[Tensor], reference: Sequence[Tensor]) -> Attributions:
    """What Captum's DeepLift gives: equal within rounding, where its rules are sound and where not.

    Args:
        scored: from volumes (batch, *spatial) to the score (batch,); every non-linearity a module that is used once.
        case, reference: one volume (1, *spatial) for each modality.

    Returns:
        Contributions (1, *spatial) for each modality, the score of the case, the score of the reference.
    """
    if halves_are_apart(scored):
        try:
            slopes, case_score, reference_score = multipliers(scored, case, reference, rules=_VOXELWISE, one_row=_MAX_POOLS)
        except UnevenRows:
            # Slices in the batch of a layer: Captum gives all of them the first one's gradient where a pooling has dx = 0.
            return _stacked(scored, case, reference)
        found = tuple(slope * (volume - absent) for slope, volume, absent in zip(slopes, case, reference, strict=True))
        return found, case_score, reference_score
    return _stacked(scored, case, reference)


def halves_are_apart(scored: nn.Module) -> bool:
    """Whether no rule of Captum's joins case and reference, or replaces the gradient of what somebody else reads too.

    True for graphs whose every ruled activation is the only reader of its operand, whose max poolings read such an activation,
    and that hold no softmax.
    """
    if any(type(module) is nn.Softmax for module in scored.modules()):
        return False
    twins = [module for module in scored.modules() if isinstance(module, fx.GraphModule)]
    if len(twins) != 1:
        return False
    twin = twins[0]
    inside = sum(type(_module(twin, node)) in _RULED for node in twin.graph.nodes)
    if sum(type(module) in _RULED for module in scored.modules()) > inside:
        # An activation behind the twin reads what the twin gives, and nobody else does.
        (answer,) = twin.graph.find_nodes(op="output")[0].all_input_nodes
        if type(_module(twin, _maker(twin, answer)[0])) in _RULED:
            return False
    return all(_is_apart(twin, node) for node in twin.graph.nodes)


def _is_apart(twin: fx.GraphModule, node: fx.Node) -> bool:
    kind = type(_module(twin, node))
    if kind not in _RULED:
        return True
    maker, readers = _maker(twin, node.all_input_nodes[0])
    before = type(_module(twin, maker))
    if kind in _MAX_POOLS:
        return before in _VOXELWISE
    return before not in _RULED and readers == 1


def _maker(twin: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, int]:
    """Who makes the tensor that a node stands for, and how many read it: an identity hands on what it gets."""
    readers = len(node.users)
    while type(_module(twin, node)) is nn.Identity:
        (node,) = node.all_input_nodes
        readers = max(readers, len(node.users))
    return node, readers


def _module(twin: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return twin.get_submodule(str(node.target)) if node.op == "call_module" else None


class _WithoutCopies(DeepLift):  # type: ignore[misc]
    """Captum's, which clones what it keeps against layers that compute in place; the twin has none outside its own passes."""

    def _forward_pre_hook(self, module: nn.Module, inputs: Any) -> None:
        module.input = inputs[0].detach()

    def _forward_hook(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        module.output = outputs.detach()


def _stacked(scored: nn.Module, case: Sequence[Tensor], reference: Sequence[Tensor]) -> Attributions:
    point = tuple(volume.detach().clone().requires_grad_() for volume in case)
    scores: list[Tensor] = []
    # Set before Captum's own hooks: case and reference are still in one batch.
    hook = scored.register_forward_hook(lambda _module, _inputs, output: scores.append(output.detach()))
    try:
        attributions = _WithoutCopies(scored).attribute(point, tuple(reference))
    finally:
        hook.remove()
        # Captum leaves the activations of modules that no gradient reached on them.
        for module in scored.modules():
            for name in ("input", "output"):
                module.__dict__.pop(name, None)
    case_score, reference_score = torch.cat([score.flatten() for score in scores]).tolist()
    return tuple(each.detach() for each in attributions), case_score, reference_score
