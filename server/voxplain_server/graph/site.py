"""Where in the twin one ONNX node is built: what a builder may ask about the node, and what it may place."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import fx, nn

from voxplain_server.graph.onnx_graph import Array, Graph, Node
from voxplain_server.graph.unsupported_operator import UnsupportedOperator

Built = fx.Node | tuple[fx.Node, ...]


class Placement(Protocol):
    """What the twin under construction offers to a site."""

    dtype: torch.dtype

    def value(self, name: str) -> fx.Node: ...

    def weight(self, name: str) -> torch.Tensor: ...

    def place_module(self, node: Node, module: nn.Module, inputs: tuple[fx.Node, ...]) -> fx.Node: ...

    def place_call(
        self, node: Node, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
    ) -> fx.Node: ...


class Site:
    """One ONNX node about to be built."""

    def __init__(self, node: Node, graph: Graph, placement: Placement) -> None:
        self.node = node
        self.graph = graph
        self._placement = placement

    @property
    def dtype(self) -> torch.dtype:
        """The one floating-point type of the twin."""
        return self._placement.dtype

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute of the node, or `default` where the file leaves it out."""
        return self.node.attributes.get(name, default)

    def has(self, index: int) -> bool:
        """Whether the optional input is there."""
        return index < len(self.node.inputs) and self.node.inputs[index] != ""

    def constant(self, index: int) -> Array | None:
        """The elements of an input that does not depend on the graph's inputs; None if absent or computed."""
        return self.graph.constant(self.node.inputs[index]) if self.has(index) else None

    def weight(self, index: int) -> torch.Tensor:
        """A constant input as a tensor of the twin's type; a computed one is refused."""
        if self.constant(index) is None:
            raise self.unsupported("computed weight")
        return self._placement.weight(self.node.inputs[index])

    def value(self, index: int) -> fx.Node:
        """An input as the twin computes it."""
        return self._placement.value(self.node.inputs[index])

    def values(self) -> list[fx.Node]:
        """All inputs as the twin computes them."""
        return [self.value(index) for index in range(len(self.node.inputs)) if self.has(index)]

    def integers(self, index: int, attribute: str | None = None) -> Any:
        """Axes, sizes, pads: a list if constant, else the node that computes them; None if absent.

        Older operator sets keep them in the attribute of that name.
        """
        if attribute is not None and attribute in self.node.attributes:
            found = self.node.attributes[attribute]
            return [int(item) for item in found] if isinstance(found, tuple) else [int(found)]
        if not self.has(index):
            return None
        constant = self.constant(index)
        return self.value(index) if constant is None else [int(item) for item in np.ravel(constant)]

    def rank(self, index: int = 0) -> int:
        """The number of axes of an input; refused where shape inference cannot tell."""
        shape = self.graph.shape(self.node.inputs[index])
        if shape is None:
            raise self.unsupported("unknown rank")
        return len(shape)

    def spatial_shape(self) -> tuple[int, ...] | None:
        """The sizes of the first input behind batch and channel axis, if all are known."""
        shape = self.graph.shape(self.node.inputs[0])
        sizes = () if shape is None else shape[2:]
        known = tuple(size for size in sizes if isinstance(size, int))
        return known if shape is not None and len(known) == len(sizes) else None

    def uses_output(self, index: int) -> bool:
        """Whether anything reads the output of that number."""
        outputs = self.node.outputs
        if index >= len(outputs) or not outputs[index]:
            return False
        return bool(self.graph.consumers(outputs[index])) or outputs[index] in self.graph.outputs

    def module(self, module: nn.Module, *inputs: fx.Node) -> fx.Node:
        """Place a module of its own, applied to `inputs` or else to the node's first input."""
        return self._placement.place_module(self.node, module, inputs or (self.value(0),))

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> fx.Node:
        """Place a function call."""
        return self._placement.place_call(self.node, function, args, options)

    def unsupported(self, what: str | None = None) -> UnsupportedOperator:
        """The error that names this operator, and what about it is not known."""
        return UnsupportedOperator((self.node.op if what is None else f"{self.node.op} ({what})",))
