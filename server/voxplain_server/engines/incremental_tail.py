"""What stands behind the local part of a graph, run whole by the twin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from voxplain_server.engines.crop_layers import fx_node_of
from voxplain_server.graph.locality import Locality
from voxplain_server.graph.twin import Twin


class IncrementalTail:
    """The nodes of the twin from the frontier to the output.

    Args:
        locality: where the frontier is.
        twin: computes.
        batched: whether axis 0 of the model's values is a batch.
    """

    def __init__(self, locality: Locality, twin: Twin, *, batched: bool) -> None:
        self._locality = locality
        self._twin = twin
        self._output = fx_node_of(twin, locality.output)
        self._starts = {fx_node_of(twin, value).name: value for value in (*locality.frontier, *locality.measured)}
        self._nodes = self._between()
        self.batched = batched and all(locality.shapes[value][0] == 1 for value in locality.frontier)
        self._last_use = {source: number for number, node in enumerate(self._nodes) for source in node.all_input_nodes}

    def run(self, values: Mapping[str, Tensor], count: int) -> Tensor:
        """Compute the output.

        Args:
            values: of the frontier, each (count * rows, ...).
            count: perturbations; 1 unless `batched`.

        Returns:
            The output of all perturbations, on axis 0.
        """
        found: dict[str, Tensor] = dict(values)
        for name in self._locality.measured:
            rows, *others = self._locality.shapes[name]
            # Only its shape is read.
            found[name] = next(iter(values.values())).new_empty(()).expand(count * rows, *others)
        environment: dict[fx.Node, Any] = {}
        for number, node in enumerate(self._nodes):
            environment[node] = (
                found[self._starts[node.name]] if node.name in self._starts else self._compute(node, environment)
            )
            for source in node.all_input_nodes:
                if self._last_use[source] == number:
                    environment.pop(source, None)
        result: Tensor = environment[self._output]
        return result

    def _compute(self, node: fx.Node, environment: Mapping[fx.Node, Any]) -> Any:
        if node.op == "get_attr":
            found: Any = self._twin
            for name in str(node.target).split("."):
                found = getattr(found, name)
            return found
        args: Any = fx.node.map_arg(node.args, lambda source: environment[source])
        options: Any = fx.node.map_arg(node.kwargs, lambda source: environment[source])
        if node.op == "call_module":
            return self._twin.get_submodule(str(node.target))(*args, **options)
        target: Callable[..., Any] = node.target  # type: ignore[assignment]
        return target(*args, **options)

    def _between(self) -> list[fx.Node]:
        needed, waiting = set[fx.Node](), [self._output]
        while waiting:
            node = waiting.pop()
            if node not in needed:
                needed.add(node)
                waiting.extend([] if node.name in self._starts else node.all_input_nodes)
        return [node for node in self._twin.graph.nodes if node in needed]


def run_keeping(twin: Twin, inputs: tuple[Tensor, ...], keep: Mapping[str, str]) -> tuple[Tensor, dict[str, Tensor]]:
    """One pass of the twin.

    Args:
        twin: computes.
        inputs: of the twin.
        keep: name of a node of the twin -> name under which its result is kept.

    Returns:
        The output, and what was kept.
    """
    kept: dict[str, Tensor] = {}

    class _Keeping(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if n.name in keep:
                kept[keep[n.name]] = result
            return result

    with torch.inference_mode():
        output: Tensor = _Keeping(twin).run(*inputs)
    return output, kept
