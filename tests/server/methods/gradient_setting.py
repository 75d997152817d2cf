"""A gradient method on a tiny model: its setting, its engine, and what an independent wrapper of the same twin says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from google.protobuf.message import Message
from torch import nn
from voxplain_server.engines.input_assembly import assemble
from voxplain_server.engines.torch_engine import TorchEngine
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.method import GradientMethod, Setting
from voxplain_server.models.case import Volumes
from voxplain_server.models.model import Activation, OutputKind
from voxplain_server.models.score import Score
from voxplain_server.models.traits import ModelTraits

from tests.server.engines.tiny_models import TinyModel

Make = Callable[[Path], TinyModel]
PARITY_FLOAT64 = 1e-9


def engine(tiny: TinyModel, dtype: torch.dtype = torch.float64) -> TorchEngine:
    """The differentiable engine of a tiny model."""
    return TorchEngine(tiny.twin(dtype), tiny.model, dtype=dtype, threads=1)


def setting(tiny: TinyModel, method: GradientMethod, *, seed: int = 7, **changes: Any) -> Setting:
    """The method's defaults for the model, with some parameters changed."""
    params: Message = method.defaults(tiny.model)
    for name, value in changes.items():
        if isinstance(value, Message):
            getattr(params, name).CopyFrom(value)
        elif isinstance(value, list):
            getattr(params, name)[:] = value
        else:
            setattr(params, name, value)
    return Setting(
        case=tiny.case,
        score=tiny.score,
        base_score=0.0,
        params=params,
        seed=seed,
        key=method.name,
        traits=traits(tiny),
        block_size=1,
    )


def attribute(tiny: TinyModel, method: GradientMethod, **changes: Any) -> Estimate:
    """The method's estimate in float64."""
    return method.attribute(
        setting(tiny, method, **changes), engine(tiny), advanced=lambda passes: None, cancelled=lambda: False
    )


def traits(tiny: TinyModel) -> ModelTraits:
    """What checking the graph would show: the last convolution of each input's branch is read by default."""
    convolutions = [node.output[0] for node in tiny.proto.graph.node if node.op_type == "Conv"]
    each = len(convolutions) // len(tiny.model.inputs)
    return ModelTraits(
        twin_parity=0.0,
        has_relu=True,
        cam_layers=tuple(convolutions),
        default_cam_layers=tuple(convolutions[each - 1 :: each]),
    )


class Peer(nn.Module):
    """From the ONNX inputs to the score, written apart from the server's ScoredTwin: what Captum is given."""

    def __init__(self, tiny: TinyModel) -> None:
        super().__init__()
        self.twin = tiny.twin()
        self._score: Score = tiny.score
        self.softmax, self.sigmoid = nn.Softmax(dim=1), nn.Sigmoid()

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        answers = self.twin(*inputs)
        output = self._score.output
        if output.kind is OutputKind.SIGMOID:
            answers = torch.cat([-answers, answers], dim=1)
        if self._score.probability:
            answers = self.softmax(answers) if output.activation is Activation.SOFTMAX else self.sigmoid(answers)
        if self._score.region is not None:
            answers = answers[:, :, torch.from_numpy(self._score.region)].mean(dim=2)
        return torch.stack([weight * answers[:, index] for index, weight in self._score.weights]).sum(dim=0)

    def layer(self, value_name: str) -> nn.Module:
        """The module that makes an ONNX value."""
        return self.twin.get_submodule(self.twin.onnx_values[value_name])


def peer_inputs(tiny: TinyModel, volumes: Volumes | None = None) -> tuple[torch.Tensor, ...]:
    """The case (or other volumes) as the ONNX inputs, float64, one case."""
    arrays = assemble(tiny.model, tiny.case.volumes if volumes is None else volumes, batch=1)
    return tuple(torch.from_numpy(array).double().requires_grad_() for array in arrays)


def by_modality(tiny: TinyModel, attributions: Sequence[torch.Tensor]) -> list[npt.NDArray[np.float64]]:
    """Attributions of ONNX inputs as maps of modalities: copies of a channel are summed, slices go back to their axis."""
    maps = {}
    for spec, tensor in zip(tiny.model.inputs, attributions, strict=True):
        array = tensor.detach().numpy()
        if spec.slice_axis is not None and not spec.batch_is_slices:
            array = array[0]
        for order, name in enumerate(spec.modalities):
            copies = array[:, order * spec.repeat : (order + 1) * spec.repeat].sum(axis=1)
            maps[name] = copies[0] if spec.slice_axis is None else np.moveaxis(copies, 0, spec.slice_axis)
    return [maps[name] for name in tiny.model.modality_names]


def assert_parity(
    found: Sequence[npt.NDArray[np.float64]] | None, expected: Sequence[npt.NDArray[np.float64]], bound: float = PARITY_FLOAT64
) -> None:
    """max |a - b| / max |b| over all modalities, and the maps are not trivially zero."""
    assert found is not None
    assert [values.shape for values in found] == [values.shape for values in expected]
    assert all(values.dtype == np.float64 and values.flags.c_contiguous for values in found)
    largest = max(np.abs(values).max() for values in expected)
    assert largest > 0
    worst = max(np.abs(mine - theirs).max() for mine, theirs in zip(found, expected, strict=True))
    assert worst / largest <= bound
