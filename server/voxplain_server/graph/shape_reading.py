"""The exact shapes of all values for given input shapes, by running the twin on tensors that have no elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from voxplain_server.graph.twin import Twin

ExactShape = tuple[int, ...]


def read_shapes(twin: Twin, input_shapes: Sequence[ExactShape]) -> dict[str, ExactShape]:
    """Give the shape of every ONNX value that the twin computes from inputs of `input_shapes`. Nothing is computed.

    Raises RuntimeError where an operator cannot take these shapes.
    """
    reading = _ShapeReading(twin)
    with torch.inference_mode():
        reading.run(*[torch.empty(shape, device="meta", dtype=_dtype(twin)) for shape in input_shapes])
    return {value: reading.shapes[name] for value, name in twin.onnx_values.items() if name in reading.shapes}


def _dtype(twin: Twin) -> torch.dtype:
    return next((weight.dtype for weight in twin.parameters() if weight.is_floating_point()), torch.float32)


class _ShapeReading(fx.Interpreter):
    """Runs a module with weights that have no elements; whole numbers stay real, because shapes are made of them."""

    def __init__(self, twin: Twin) -> None:
        super().__init__(twin)
        self.shapes: dict[str, ExactShape] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n.name] = tuple(result.shape)
        return result

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        found = super().get_attr(target, args, kwargs)
        return _without_elements(found)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        state = {name: _without_elements(tensor) for name, tensor in (*module.named_parameters(), *module.named_buffers())}
        return torch.func.functional_call(module, state, args, kwargs)


def _without_elements(tensor: Tensor) -> Tensor:
    return tensor.to("meta") if tensor.is_floating_point() else tensor
