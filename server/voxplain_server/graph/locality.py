"""Which part of a graph answers to a local change locally: its steps, and what remains behind them.

Krypton (Nakandala, Kumar, Papakonstantinou, "Incremental and approximate inference for faster occlusion-based deep CNN
explanations", SIGMOD 2019) recomputes two-dimensional patches layer by layer; here boxes of any rank travel through any graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from voxplain_server.graph.dependence import dependence
from voxplain_server.graph.local_operators import find_rule
from voxplain_server.graph.local_rule import Rule
from voxplain_server.graph.onnx_graph import Graph, Node
from voxplain_server.graph.shape_reading import ExactShape
from voxplain_server.graph.work import count_flops


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One node that is evaluated on boxes.

    Attributes:
        node: it.
        output: the value it makes.
        rule: how it answers to a local change.
        flops_per_element: floating-point operations for one element of the result.
        in_place: whether it has one operand, and every place of the result reads the same place of it and no other.
    """

    node: Node
    output: str
    rule: Rule
    flops_per_element: float
    in_place: bool


@dataclass(frozen=True, slots=True, eq=False)
class Locality:
    """A graph cut in two for given input shapes: steps on boxes, and a tail that is run whole.

    Attributes:
        inputs: of the graph, in its order.
        output: the value that is asked for.
        steps: in topological order.
        frontier: values of the local part that the tail reads; the output itself where there is no tail.
        measured: values of the local part of which the tail reads the shape only.
        has_tail: whether nodes remain behind the steps.
        shapes: of every value.
        tail_flops: floating-point operations of the tail.
        full_flops: those of one whole pass.
    """

    inputs: tuple[str, ...]
    output: str
    steps: tuple[Step, ...]
    frontier: tuple[str, ...]
    measured: tuple[str, ...]
    has_tail: bool
    shapes: Mapping[str, ExactShape]
    tail_flops: float
    full_flops: float

    @property
    def kept(self) -> frozenset[str]:
        """Values whose unperturbed elements must be at hand: all that a step may read elsewhere than at its own place."""
        whole_channels = {step.output for step in self.steps if step.rule.has_whole_channels}
        found = {*self.inputs, *self.frontier}
        for step in self.steps:
            found.update(
                operand.value for operand in step.rule.operands if not (step.in_place and operand.value in whole_channels)
            )
        return frozenset(found)


def analyse_locality(graph: Graph, output: str, shapes: Mapping[str, ExactShape]) -> Locality:
    """Cut the computation of `output` in two.

    Args:
        graph: any that the twin can be built from.
        output: a value of it.
        shapes: of every value of the twin, as read_shapes tells them.
    """
    output = graph.resolve(output)
    voxels = frozenset(dependence(graph))
    local = set(graph.inputs)
    steps: list[Step] = []
    tail: list[Node] = []
    for node in graph.ancestors([output]):
        rule = find_rule(graph, node, voxels, shapes) if _is_local(node, local, voxels) else None
        if rule is None:
            tail.append(node)
            continue
        value = node.outputs[0]
        local.add(value)
        steps.append(Step(node, value, rule, rule.flops / math.prod(shapes[value]), _is_in_place(rule, shapes, value)))
    read = {value: node for node in tail for value in node.inputs if value in local}
    voxels_read = {value for node in tail if node.op not in ("Shape", "Size") for value in node.inputs if value in local}
    has_tail = output not in local
    frontier = tuple(value for value in read if value in voxels_read) if has_tail else (output,)
    measured = tuple(value for value in read if value not in voxels_read) if has_tail else ()
    tail_flops = sum(count_flops(graph, node, shapes) for node in tail) if has_tail else 0.0
    # Chains that only measure shapes may stand beside steps; without a tail nobody reads them.
    return Locality(
        inputs=graph.inputs,
        output=output,
        steps=tuple(steps),
        frontier=frontier,
        measured=measured,
        has_tail=has_tail,
        shapes=shapes,
        tail_flops=tail_flops,
        full_flops=sum(step.rule.flops for step in steps) + tail_flops,
    )


def _is_local(node: Node, local: set[str], voxels: frozenset[str]) -> bool:
    dependent = [value for value in node.inputs if value in voxels]
    return bool(dependent) and node.op not in ("Shape", "Size") and all(value in local for value in dependent)


def _is_in_place(rule: Rule, shapes: Mapping[str, ExactShape], value: str) -> bool:
    operand, made = rule.operands[0], shapes[value]
    read = shapes[operand.value]
    return len(rule.operands) == 1 and operand.plain and (read[0], *read[2:]) == (made[0], *made[2:])
