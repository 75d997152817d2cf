"""Exporting a network with either of PyTorch's exporters, quietly."""

import contextlib
import io
import logging
import pathlib
import warnings
from collections.abc import Iterator

import onnx
import torch

from tests.server.graph.networks import NetworkCase


def export(network: NetworkCase, dynamo: bool, folded: bool | None, path: pathlib.Path) -> pathlib.Path:
    """Write `network` as one self-contained ONNX file at `path`, and return `path`.

    Inputs are named input_0, input_1, ...; the output is named scores; a dynamic batch axis is named batch. `folded` None is
    the exporter's default, which merges BatchNorm into the convolution before it; False keeps every layer as it was written.
    """
    names = [f"input_{number}" for number in range(len(network.input_shapes))]
    module = network.build()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _silent_logging():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = tuple({0: torch.export.Dim("batch")} for _ in names) if network.dynamic_batch else None
            torch.onnx.export(
                module,
                network.inputs(),
                path,
                input_names=names,
                output_names=["scores"],
                dynamo=True,
                external_data=False,
                dynamic_shapes=shapes,
                optimize=folded is not False,
                verbose=False,
            )
            if folded is False:
                _drop_invented_biases(path)
        else:
            mode = torch.onnx.TrainingMode.PRESERVE if folded is False else torch.onnx.TrainingMode.EVAL
            torch.onnx.export(
                module,
                network.inputs(),
                path,
                input_names=names,
                output_names=["scores"],
                dynamo=False,
                dynamic_axes={name: {0: "batch"} for name in (*names, "scores")} if network.dynamic_batch else None,
                training=mode,
                do_constant_folding=folded is not False,
            )
    return path


def _drop_invented_biases(path: pathlib.Path) -> None:
    """Without its optimiser the exporter gives a convolution without bias one of a shape that ONNX Runtime refuses."""
    model = onnx.load(path)
    expanded = {node.output[0] for node in model.graph.node if node.op_type == "Expand"}
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) == 3 and node.input[2] in expanded:
            del node.input[2]
    onnx.save(model, path)


@contextlib.contextmanager
def _silent_logging() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
