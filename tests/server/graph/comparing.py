"""How far two answers are apart, and the answers to compare."""

import pathlib
from collections.abc import Sequence

import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from voxplain_server.graph.onnx_file import read_onnx

MAX_BYTES = 1 << 28


def relative_difference(found: Tensor | Sequence[Tensor], expected: Tensor | Sequence[Tensor]) -> float:
    """max|a - b| / max|b| over all tensors of an answer."""
    found, expected = ([values] if isinstance(values, Tensor) else list(values) for values in (found, expected))
    gap = max(float((one - other).abs().max()) for one, other in zip(found, expected, strict=True))
    return gap / max(float(other.abs().max()) for other in expected)


def read(path: pathlib.Path) -> onnx.ModelProto:
    """The model at `path`, by the reader under test."""
    return read_onnx(path, max_bytes=MAX_BYTES)


def run_onnx(model: onnx.ModelProto, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What ONNX Runtime answers, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {put.name: tensor.numpy() for put, tensor in zip(session.get_inputs(), inputs, strict=True)}
    return [torch.from_numpy(output) for output in session.run(None, feeds)]


def distance(network: nn.Module, original: nn.Module, inputs: Sequence[Tensor]) -> float:
    """The larger of two relative differences: of the scores, and of the input gradients."""
    scores, gradients = _scores_and_gradients(network, inputs)
    expected_scores, expected_gradients = _scores_and_gradients(original, inputs)
    return max(relative_difference(scores, expected_scores), relative_difference(gradients, expected_gradients))


def _scores_and_gradients(network: nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The scores, and the gradient of a fixed random weighting of them with respect to each input."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    scores = network(*leaves)
    weights = torch.randn(scores.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return scores.detach(), torch.autograd.grad((scores * weights.to(scores.dtype)).sum(), leaves)
