"""ONNX Runtime, the original and the twin agree, for every architecture and both exporters."""

import pytest
import torch
from voxplain_server.graph.twin import build_twin

from tests.server.graph.comparing import distance, read, relative_difference, run_onnx
from tests.server.graph.conftest import Exported
from tests.server.graph.networks import NETWORKS

FLOAT32_BOUND = 1e-4
FOLDED_BOUND = 1e-6
"""Merging BatchNorm into a convolution rounds its weights to float32."""
EXACT_BOUND = 1e-9
ROUNDED_CONSTANT_BOUND = 1e-8
"""The scale of the attention, 1 / sqrt(8), is a float32 in the file."""

EXPORTERS = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
EVERY_NETWORK = pytest.mark.parametrize("name", NETWORKS)


@EXPORTERS
@EVERY_NETWORK
def test_onnx_runtime_original_and_twin_agree_in_float32(name: str, dynamo: bool, exported: Exported) -> None:
    case = NETWORKS[name]
    model = read(exported(name, dynamo=dynamo))
    with torch.no_grad():
        original, twin = case.build()(*case.inputs()), build_twin(model)(*case.inputs())
    assert relative_difference(run_onnx(model, case.inputs())[0], original) <= FLOAT32_BOUND
    assert relative_difference(twin, original) <= FLOAT32_BOUND


@EXPORTERS
@EVERY_NETWORK
def test_scores_and_input_gradients_of_the_twin_are_the_originals(name: str, dynamo: bool, exported: Exported) -> None:
    case = NETWORKS[name]
    twin = build_twin(read(exported(name, dynamo=dynamo)), dtype=torch.float64)
    original, inputs = case.build().double(), case.inputs(dtype=torch.float64)
    assert distance(twin, original, inputs) <= FOLDED_BOUND


UNFOLDED = [(name, False) for name in NETWORKS] + [("vgg", True), ("resnet18", True)]


@pytest.mark.parametrize(
    ("name", "dynamo"), UNFOLDED, ids=[f"{name}-{'dynamo' if new else 'torchscript'}" for name, new in UNFOLDED]
)
def test_without_folding_nothing_is_lost_in_float64(name: str, dynamo: bool, exported: Exported) -> None:
    case = NETWORKS[name]
    twin = build_twin(read(exported(name, dynamo=dynamo, folded=False)), dtype=torch.float64)
    original, inputs = case.build().double(), case.inputs(dtype=torch.float64)
    bound = ROUNDED_CONSTANT_BOUND if name == "vit" else EXACT_BOUND
    assert distance(twin, original, inputs) <= bound


@EXPORTERS
@pytest.mark.parametrize("name", [name for name, case in NETWORKS.items() if case.dynamic_batch])
def test_a_dynamic_batch_axis_stays_dynamic(name: str, dynamo: bool, exported: Exported) -> None:
    case = NETWORKS[name]
    twin = build_twin(read(exported(name, dynamo=dynamo)), dtype=torch.float64)
    first, second = (case.inputs(seed=seed, dtype=torch.float64)[0] for seed in (1, 2))
    with torch.no_grad():
        together = twin(torch.cat((first, second, first)))
        assert relative_difference(together[1:2], twin(second)) <= 1e-12
    assert together.shape[0] == 3
