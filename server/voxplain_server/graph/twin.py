"""The twin: an ONNX graph rebuilt as a torch.fx module whose gradients and hooks can be trusted."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import fx, nn

from voxplain_server.graph.graph_reader import read_graph
from voxplain_server.graph.onnx_graph import Array, Graph, Node
from voxplain_server.graph.operators import OPERATORS
from voxplain_server.graph.site import Built, Site
from voxplain_server.graph.tensor_functions import literal
from voxplain_server.graph.unsupported_operator import UnsupportedOperator

_LITERAL_ELEMENTS = 256
"""Whole numbers up to this many are written into the code: shapes and axes then never live on an accelerator."""


class Twin(fx.GraphModule):
    """A differentiable copy of an ONNX graph.

    Takes one tensor per graph input, in the graph's order; returns one tensor, or a tuple if several outputs were asked for.
    Every ONNX node is a module or a call of its own.
    """

    @property
    def onnx_values(self) -> dict[str, str]:
        """ONNX value name -> name of the fx node that computes it, which for layers is the submodule's name as well."""
        names: dict[str, str] = self.meta["onnx_values"]
        return names


def build_twin(
    model: onnx.ModelProto | Graph, *, dtype: torch.dtype = torch.float32, outputs: Sequence[str] | None = None
) -> Twin:
    """Rebuild `model`, as `read_onnx` or `read_graph` left it, with all its floating-point numbers as `dtype`.

    `outputs` names other values of the graph to return instead of its own outputs, such as logits before a softmax.
    The twin is in inference mode and on the CPU; no parameter requires a gradient.

    Raises UnsupportedOperator, naming every operator it has no counterpart for, and ValueError for an unknown output.
    """
    graph = model if isinstance(model, Graph) else read_graph(model)
    return _Construction(graph, dtype).finish(graph.outputs if outputs is None else tuple(outputs))


class _Construction:
    """The twin while it is being built; what `site.Placement` asks for."""

    def __init__(self, graph: Graph, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._graph = graph
        self._fx = fx.Graph()
        self._attributes: dict[str, Any] = {}
        self._values: dict[str, fx.Node] = {}
        self._weights: dict[str, torch.Tensor] = {}

    def finish(self, outputs: tuple[str, ...]) -> Twin:
        if not outputs or not all(self._graph.has_value(name) for name in outputs):
            raise ValueError("outputs: a name is not a value of this graph; take outputs of its nodes")
        for name in self._graph.inputs:
            self._values[name] = self._fx.placeholder(_identifier(name))
        self._build_nodes(self._graph.ancestors(outputs))
        results = tuple(self.value(name) for name in outputs)
        self._fx.output(results[0] if len(results) == 1 else results)
        self._fx.lint()
        twin = Twin(self._attributes, self._fx, "Twin")
        twin.meta["onnx_values"] = {
            name: self._values[resolved].name
            for name in (*self._values, *self._graph.aliases)
            if (resolved := self._graph.resolve(name)) in self._values
        }
        return twin.eval()

    def value(self, name: str) -> fx.Node:
        name = self._graph.resolve(name)
        if name not in self._values:
            self._values[name] = self._place_constant(name)
        return self._values[name]

    def weight(self, name: str) -> torch.Tensor:
        name = self._graph.resolve(name)
        if name not in self._weights:
            self._weights[name] = _tensor(self._graph.initializers[name], self.dtype)
        return self._weights[name]

    def place_module(self, node: Node, module: nn.Module, inputs: tuple[fx.Node, ...]) -> fx.Node:
        placed = self._fx.create_node("call_module", "", inputs, name=_node_name(node))
        placed.target = placed.name
        self._attributes[placed.name] = module
        return placed

    def place_call(self, node: Node, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> fx.Node:
        return self._fx.create_node("call_function", function, args, options, name=_node_name(node))

    def _build_nodes(self, nodes: Sequence[Node]) -> None:
        unsupported: list[str] = []
        cause: Exception | None = None
        for node in nodes:
            try:
                if node.op not in OPERATORS:
                    raise UnsupportedOperator((node.op,))
                built = OPERATORS[node.op](Site(node, self._graph, self))
            except Exception as error:
                # A node may be built against the rules of its operator in ways that no checker looks for.
                named = error.ops if isinstance(error, UnsupportedOperator) else (f"{node.op} (malformed)",)
                unsupported.extend(named)
                cause = error
                # The walk goes on, so that the error names what else is missing.
                built = tuple(self._fx.call_function(literal, ((), (0,), self.dtype)) for _ in node.outputs)
            self._remember(node, built)
        if unsupported:
            raise UnsupportedOperator(tuple(unsupported)) from cause

    def _remember(self, node: Node, built: Built) -> None:
        results = (built,) if isinstance(built, fx.Node) else built
        for name, result in zip(node.outputs, results, strict=False):
            if name:
                self._values[name] = result

    def _place_constant(self, name: str) -> fx.Node:
        elements = self._graph.initializers[name]
        if elements.dtype.kind in "iub" and elements.size <= _LITERAL_ELEMENTS:
            dtype = getattr(torch, elements.dtype.name)
            return self._fx.call_function(literal, (tuple(elements.reshape(-1).tolist()), elements.shape, dtype))
        placed = self._fx.create_node("get_attr", "", name=_identifier(name))
        placed.target = placed.name
        self._attributes[placed.name] = self.weight(name)
        return placed


def _tensor(elements: Array, dtype: torch.dtype) -> torch.Tensor:
    whole = elements.dtype.kind in "iub"
    # A copy: protobuf's own bytes are read-only, and one weight may serve twins of several types.
    tensor = torch.from_numpy(np.array(elements if whole or elements.dtype.kind == "f" else elements.astype(np.float32)))
    return tensor if whole else tensor.to(dtype)


def _node_name(node: Node) -> str:
    return _identifier(node.name or f"{node.op}_{next((name for name in node.outputs if name), '')}")


def _identifier(name: str) -> str:
    cleaned = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    return cleaned if cleaned and not cleaned[0].isdigit() else f"value_{cleaned}"
