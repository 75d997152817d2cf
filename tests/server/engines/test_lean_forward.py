"""The lean copy of a twin: the same numbers, fewer elements touched."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn
from voxplain_server.engines.lean_forward import lean_forward
from voxplain_server.engines.packed_convolution import PackedConvolution
from voxplain_server.graph.twin import Twin, build_twin


class Residual(nn.Module):
    """A ReLU that two read, one that a pool reads, one that reads an input, and one behind an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(2, 4, 3, padding=1), nn.Conv3d(4, 4, 3, padding=1)
        self.pool, self.relu = nn.MaxPool3d(3, stride=2, padding=1), nn.ReLU()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        both = self.relu(self.first(self.relu(image)))
        summed = self.relu(self.second(both) + both)
        pooled: torch.Tensor = self.pool(self.relu(self.second(summed)))
        return pooled.mean(dim=(2, 3, 4))


def twin_of(net: nn.Module, path: Path) -> Twin:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), (torch.zeros(1, 2, 9, 8, 7),), str(path), dynamo=False)
    return build_twin(onnx.load(path))


@pytest.fixture
def twin(tmp_path: Path) -> Twin:
    torch.manual_seed(0)
    return twin_of(Residual(), tmp_path / "net.onnx")


def test_a_lean_pass_gives_the_same_numbers_and_leaves_its_input_alone(twin: Twin) -> None:
    image = torch.randn(1, 2, 9, 8, 7)
    before = image.clone()
    with torch.inference_mode():
        torch.testing.assert_close(lean_forward(twin)(image), twin(image), rtol=1e-5, atol=1e-6)
        assert torch.equal(image, before)
        # In float64 nothing is packed: the same bits.
        twin.double()
        assert torch.equal(lean_forward(twin)(image.double()), twin(image.double()))


def test_convolutions_are_packed_and_cut_off_at_zero_themselves(twin: Twin) -> None:
    lean = lean_forward(twin)
    kinds = [type(lean.get_submodule(str(node.target))) for node in lean.graph.nodes if node.op == "call_module"]
    assert kinds.count(PackedConvolution) == 3
    # Of the four ReLUs one reads the input, one a sum; two are within convolutions.
    assert kinds.count(nn.ReLU) == 2
    assert nn.Conv3d not in kinds


def test_maxima_are_taken_before_the_relu_and_only_what_nobody_else_reads_is_overwritten(twin: Twin) -> None:
    lean = lean_forward(twin.double())
    in_place = [node for node in lean.graph.nodes if node.target is torch.relu_]
    kinds = [type(lean.get_submodule(str(node.args[0].target))) for node in in_place]
    assert kinds == [nn.Conv3d, nn.MaxPool3d]
    relus = [node for node in lean.graph.nodes if node.op == "call_module" and type(lean.get_submodule(node.target)) is nn.ReLU]
    assert len(relus) == 2
    assert sum(node.target is torch.relu_ for node in twin.graph.nodes) == 0


def test_weights_are_shared_with_the_twin(twin: Twin) -> None:
    pointers = {parameter.data_ptr() for parameter in twin.parameters()}
    assert {parameter.data_ptr() for parameter in lean_forward(twin).parameters()} <= pointers
