"""A light typed view of one ONNX graph: what the twin, the locality analysis and the traits of a model are read from."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Dimension = int | str | None
"""A known size, the name of a size known at run time only (a dynamic batch), or nothing known."""
Shape = tuple[Dimension, ...]
Activation = Literal["softmax", "sigmoid"]

_FINAL_ACTIVATIONS: Mapping[str, Activation] = {"Softmax": "softmax", "Sigmoid": "sigmoid"}
_KEEPS_VALUES = frozenset({"Identity", "Squeeze", "Unsqueeze", "Reshape", "Flatten"})


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator, equal to itself alone. An optional input that is absent is the empty string, as in ONNX."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A flat graph in topological order, with everything computed that does not depend on the inputs.

    `initializers` holds the weights and the folded constants that a node or an output still uses. `shapes` and `types` know
    the inputs, every initializer and what shape inference could tell. `aliases` maps the values of operators that do nothing
    (Identity, Dropout at inference) to the values that replace them.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    initializers: Mapping[str, Array]
    shapes: Mapping[str, Shape]
    types: Mapping[str, np.dtype[Any]]
    aliases: Mapping[str, str]
    opset: int
    _producers: Mapping[str, Node] = dataclasses.field(init=False, repr=False)
    _consumers: Mapping[str, tuple[Node, ...]] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        producers = {value: node for node in self.nodes for value in node.outputs if value}
        consumers: dict[str, tuple[Node, ...]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                consumers[value] = (*consumers.get(value, ()), node)
        object.__setattr__(self, "_producers", producers)
        object.__setattr__(self, "_consumers", consumers)

    def resolve(self, value: str) -> str:
        """The name under which `value` is kept, whether or not an operator that does nothing stood between."""
        while value in self.aliases:
            value = self.aliases[value]
        return value

    def has_value(self, value: str) -> bool:
        """Whether the graph knows `value`: an input, what a node makes, or a constant."""
        value = self.resolve(value)
        return value in self._producers or value in self.inputs or value in self.initializers

    def producer(self, value: str) -> Node | None:
        """The node that makes `value`; None for inputs, initializers and unknown names."""
        return self._producers.get(self.resolve(value))

    def consumers(self, value: str) -> tuple[Node, ...]:
        """The nodes that read `value`, in topological order."""
        return self._consumers.get(self.resolve(value), ())

    def ancestors(self, values: Iterable[str]) -> tuple[Node, ...]:
        """The nodes that `values` are computed by, in topological order."""
        needed = {self.resolve(value) for value in values}
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                kept.append(node)
        return tuple(reversed(kept))

    def shape(self, value: str) -> Shape | None:
        """The shape of `value`, or None if not even its rank is known."""
        return self.shapes.get(self.resolve(value))

    def constant(self, value: str) -> Array | None:
        """The elements of `value` if they do not depend on the inputs."""
        return self.initializers.get(self.resolve(value))


def activation_before_output(graph: Graph, output: str) -> tuple[str, Activation | None]:
    """What a final Softmax or Sigmoid was applied to: its input's name and which of the two.

    Identity, Squeeze, Unsqueeze, Reshape and Flatten may stand behind the activation. Without one: `(output, None)`.
    """
    value = output
    while (node := graph.producer(value)) is not None:
        if node.op in _FINAL_ACTIVATIONS:
            return node.inputs[0], _FINAL_ACTIVATIONS[node.op]
        if node.op not in _KEEPS_VALUES:
            break
        value = node.inputs[0]
    return output, None
