"""The same with fewer trips through memory: what whole passes of the twin run, where nobody hooks into its layers."""

from __future__ import annotations

import torch
from torch import fx, nn

from voxplain_server.engines.packed_convolution import PackedConvolution, is_packable, pack_module

_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_FRESH = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.Linear, *_MAX_POOLS),
    PackedConvolution,
)
"""Modules whose result is memory of its own."""


def lean_forward(twin: fx.GraphModule) -> fx.GraphModule:
    """A copy of a twin for inference that shares its weights; equal to it up to the order of summation in convolutions.

    A convolution is packed and cuts off at zero itself where only a ReLU reads it. A maximum is taken before another ReLU, and
    not after it: the two commute, and with windows of 2 x 2 x 2 an eighth of the elements is left to the ReLU. A ReLU
    overwrites what nothing else reads.
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(twin.graph, {}))
    made = fx.GraphModule(twin, graph)
    for node in list(graph.nodes):
        if node.op == "call_module" and is_packable(made.get_submodule(str(node.target))):
            _pack(made, node)
    for node in list(graph.nodes):
        if _is(made, node, nn.ReLU):
            _after_pool(made, node)
    for node in list(graph.nodes):
        if _is(made, node, nn.ReLU) and _is(made, node.args[0], *_FRESH) and len(node.args[0].users) == 1:
            with graph.inserting_after(node):
                node.replace_all_uses_with(in_place := graph.call_function(torch.relu_))
            in_place.args = node.args
            graph.erase_node(node)
    made.delete_all_unused_submodules()
    graph.lint()
    made.recompile()
    return made


def _pack(made: fx.GraphModule, node: fx.Node) -> None:
    users = list(node.users)
    relu = users[0] if len(users) == 1 and _is(made, users[0], nn.ReLU) else None
    plain = made.get_submodule(str(node.target))
    node.target = f"{node.name}_packed"
    made.add_submodule(node.target, pack_module(plain, relu=relu is not None))
    if relu is not None:
        relu.replace_all_uses_with(node)
        made.graph.erase_node(relu)


def _after_pool(made: fx.GraphModule, relu: fx.Node) -> None:
    users = list(relu.users)
    if len(users) != 1 or not _is(made, users[0], *_MAX_POOLS):
        return
    pool, source = users[0], relu.args[0]
    pool.replace_input_with(relu, source)  # type: ignore[arg-type]
    pool.replace_all_uses_with(relu)
    relu.args = (pool,)
    pool.append(relu)


def _is(made: fx.GraphModule, node: object, *kinds: type[nn.Module]) -> bool:
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return False
    # Not a subclass, which may do something else as well.
    return type(made.get_submodule(str(node.target))) in kinds
