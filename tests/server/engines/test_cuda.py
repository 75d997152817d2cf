"""The engines on an NVIDIA GPU, where there is one: the same numbers as on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from voxplain_server.engines.onnx_engine import OnnxEngine
from voxplain_server.engines.torch_engine import TorchEngine
from voxplain_server.engines.torch_evaluator import TorchEvaluator
from voxplain_server.methods import all_methods
from voxplain_server.methods.method import GradientMethod

from tests.server.engines.tiny_models import TINY_MODELS, TinyModel, early, replacements
from tests.server.methods.gradient_setting import attribute, setting

GRADIENT_METHODS = [method for method in all_methods().values() if isinstance(method, GradientMethod)]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
needs_cuda_onnxruntime = pytest.mark.skipif(
    not torch.cuda.is_available() or "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="no ONNX Runtime with CUDA here",
)


def go_on() -> bool:
    return False


def _expected(tiny: TinyModel) -> np.ndarray:
    exact = TorchEvaluator(tiny.twin(torch.float64), tiny.model, dtype=torch.float64)
    return exact.scores(tiny.case, tiny.score, replacements(tiny.case), batch_size=3, cancelled=go_on)


def _largest_effect(expected: np.ndarray) -> float:
    return float(np.abs(expected - expected[3]).max())


@needs_cuda
@pytest.mark.parametrize("make", TINY_MODELS, ids=lambda make: make.__name__)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 5e-4), (torch.float64, 1e-9)], ids=str)
def test_the_twin_scores_alike(make: Callable[[Path], TinyModel], dtype: torch.dtype, bound: float, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    engine = TorchEvaluator(tiny.twin(dtype), tiny.model, device="cuda", dtype=dtype)
    found = engine.scores(tiny.case, tiny.score, replacements(tiny.case), batch_size=3, cancelled=go_on)
    expected = _expected(tiny)
    assert np.abs(found - expected).max() <= bound * _largest_effect(expected)
    assert engine.name == "torch-cuda"


@needs_cuda
@pytest.mark.parametrize("method", GRADIENT_METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("make", TINY_MODELS, ids=lambda make: make.__name__)
def test_gradient_methods_agree(make: Callable[[Path], TinyModel], method: GradientMethod, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    twin = TorchEngine(tiny.twin(torch.float64), tiny.model, device="cuda", dtype=torch.float64)
    found = method.attribute(setting(tiny, method), twin, advanced=lambda passes: None, cancelled=go_on)
    expected = attribute(tiny, method)
    for estimate in (found, expected):
        assert (estimate.maps is None) is (estimate.shared is not None)
    pairs = list(zip(found.maps or [], expected.maps or [], strict=True))
    pairs += [(a.values, b.values) for a, b in zip(found.shared or [], expected.shared or [], strict=True)]
    largest = max(np.abs(theirs).max() for _, theirs in pairs)
    assert max(np.abs(mine - theirs).max() for mine, theirs in pairs) <= 1e-9 * largest


@needs_cuda_onnxruntime
@pytest.mark.parametrize("make", TINY_MODELS, ids=lambda make: make.__name__)
def test_onnx_runtime_scores_alike(make: Callable[[Path], TinyModel], tmp_path: Path) -> None:
    tiny = make(tmp_path)
    engine = OnnxEngine(tiny.proto, tiny.model, threads=1, device="cuda")
    found = engine.scores(tiny.case, tiny.score, replacements(tiny.case), batch_size=3, cancelled=go_on)
    expected = _expected(tiny)
    assert np.abs(found - expected).max() <= 5e-4 * _largest_effect(expected)
    engine.shrink()


@needs_cuda
def test_memory_on_the_device_does_not_grow_with_steps(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    method = all_methods()["integrated-gradients"]
    assert isinstance(method, GradientMethod)
    peaks = []
    for steps in (2, 2, 20):
        twin = TorchEngine(tiny.twin(torch.float32), tiny.model, device="cuda")
        torch.cuda.reset_peak_memory_stats()
        method.attribute(setting(tiny, method, steps=steps), twin, advanced=lambda passes: None, cancelled=go_on)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[2] <= peaks[1] * 1.1
