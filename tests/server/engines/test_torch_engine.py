"""The differentiable engine: the score that Score.of reads, layers and branches by ONNX name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from voxplain_server.engines.onnx_engine import OnnxEngine
from voxplain_server.engines.scored_twin import ScoredTwin
from voxplain_server.engines.torch_engine import TorchEngine
from voxplain_server.graph.twin import build_twin

from tests.server.engines.tiny_models import TINY_MODELS, TinyModel, early, knee, late, segmentation


def _engine(tiny: TinyModel, dtype: torch.dtype = torch.float64) -> TorchEngine:
    return TorchEngine(tiny.twin(dtype), tiny.model, dtype=dtype, threads=1)


@pytest.mark.parametrize("make", TINY_MODELS, ids=lambda make: make.__name__)
def test_the_scored_twin_gives_the_score(make: Callable[[Path], TinyModel], tmp_path: Path) -> None:
    tiny = make(tmp_path)
    engine = _engine(tiny)
    volumes = engine.tensors(tiny.case.volumes)
    expected = tiny.score.of(OnnxEngine(tiny.proto, tiny.model, threads=1).answer(tiny.case))
    found = engine.scored(tiny.score)(*volumes)
    assert found.shape == (1,)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert engine.batched is tiny.model.batched
    if engine.batched:
        doubled = engine.scored(tiny.score)(*[torch.cat([volume, 2 * volume]) for volume in volumes])
        assert doubled.shape == (2,)
        torch.testing.assert_close(doubled[:1], found)


def test_a_score_in_single_precision_is_summed_in_double(tmp_path: Path) -> None:
    tiny = segmentation(tmp_path)
    engine = _engine(tiny, torch.float32)
    assert engine.scored(tiny.score)(*engine.tensors(tiny.case.volumes)).dtype == torch.float64


def test_a_segmentation_needs_its_region(tmp_path: Path) -> None:
    tiny = segmentation(tmp_path)
    with pytest.raises(ValueError, match="region"):
        ScoredTwin(tiny.twin(), tiny.model, replace(tiny.score, region=None))


def test_an_answer_without_batch_axis_gets_one(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    proto = onnx.ModelProto()
    proto.CopyFrom(tiny.proto)
    proto.graph.node.append(helper.make_node("Squeeze", ["pred"], ["flat"]))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, None))
    output = replace(tiny.model.output, name="flat", score_name="flat", has_batch_axis=False)
    model = replace(tiny.model, output=output, batched=False)
    flat = TorchEngine(build_twin(proto, dtype=torch.float64, outputs=["flat"]), model, dtype=torch.float64)
    volumes = flat.tensors(tiny.case.volumes)
    torch.testing.assert_close(
        flat.scored(replace(tiny.score, output=output))(*volumes), _engine(tiny).scored(tiny.score)(*volumes)
    )


def test_gradients_reach_volumes_but_no_weight(tmp_path: Path) -> None:
    tiny = late(tmp_path)
    engine = _engine(tiny)
    scored = engine.scored(tiny.score)
    volumes = [volume.requires_grad_() for volume in engine.tensors(tiny.case.volumes)]
    gradients = torch.autograd.grad(scored(*volumes)[0], volumes)
    assert [gradient.shape[1:] for gradient in gradients] == [volume.shape for volume in tiny.case.volumes]
    assert not any(parameter.requires_grad for parameter in scored.parameters())


def test_tensors_are_copies_of_volumes(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    before = tiny.case.volumes[0].tobytes()
    _engine(tiny, torch.float32).tensors(tiny.case.volumes)[0].add_(1.0)
    assert tiny.case.volumes[0].tobytes() == before


def test_a_layer_is_the_module_that_makes_a_value(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    engine = _engine(tiny)
    seen: list[torch.Size] = []
    layer = engine.layer(tiny.score, "conv_2")
    assert isinstance(layer, torch.nn.Conv3d)
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    engine.scored(tiny.score)(*engine.tensors(tiny.case.volumes))
    assert seen == [(1, 4, *tiny.case.volumes[0].shape)]


@pytest.mark.parametrize("value", ["nowhere", "image", "flatten_5"])
def test_a_value_that_no_module_makes_is_unknown(value: str, tmp_path: Path) -> None:
    tiny = early(tmp_path)
    with pytest.raises(KeyError):
        _engine(tiny).layer(tiny.score, value)


def test_values_know_the_modalities_they_come_from(tmp_path: Path) -> None:
    assert _engine(early(tmp_path)).modalities_of("conv_2") == (0, 1)
    branches = _engine(late(tmp_path))
    assert [branches.modalities_of(name) for name in ("conv_2", "conv_8", "gemm_13")] == [(0,), (1,), (0, 1)]
    assert _engine(knee(tmp_path)).modalities_of("conv_11") == (1,)
    with pytest.raises(KeyError):
        branches.modalities_of("nowhere")
