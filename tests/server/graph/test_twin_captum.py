"""Captum on the twin gives what Captum gives on a clean original, also where the author's own network misleads it."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import Deconvolution, DeepLift, GuidedBackprop, InputXGradient, Saliency
from torch import Tensor, nn
from voxplain_server.graph.twin import build_twin

from tests.server.graph.comparing import read, relative_difference
from tests.server.graph.conftest import Exported
from tests.server.graph.networks import NETWORKS, NetworkCase

BOUND = 1e-6
TARGET = 1

METHODS: dict[str, Callable[[nn.Module], Any]] = {
    "saliency": Saliency,
    "input-x-gradient": InputXGradient,
    "guided-backprop": GuidedBackprop,
    "deconvolution": Deconvolution,
    "deep-lift": DeepLift,
}


class ClassMeans(nn.Module):
    """A segmentation's classes, each as the mean of its scores over the volume."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        scores: Tensor = self.network(*inputs)
        return scores.flatten(2).mean(2) if scores.ndim > 2 else scores


def attribute(method: str, network: nn.Module, case: NetworkCase) -> tuple[Tensor, ...]:
    """The attribution maps of a case, in float64, one per input."""
    inputs = tuple(tensor.requires_grad_() for tensor in case.inputs(seed=3, dtype=torch.float64))
    with warnings.catch_warnings():
        # Captum announces its hooks.
        warnings.filterwarnings("ignore", module="captum.*")
        maps: tuple[Tensor, ...] = METHODS[method](ClassMeans(network)).attribute(inputs, target=TARGET)
    return tuple(found.detach() for found in maps)


def supported(method: str, case: NetworkCase) -> bool:
    """Captum's DeepLift stacks the baseline on axis 0, which must therefore be a batch axis."""
    return method != "deep-lift" or case.dynamic_batch


PAIRS = [(name, method) for name, case in NETWORKS.items() for method in METHODS if supported(method, case)]


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize(("name", "method"), PAIRS, ids=[f"{name}-{method}" for name, method in PAIRS])
def test_captum_on_the_twin_equals_captum_on_a_clean_original(name: str, method: str, dynamo: bool, exported: Exported) -> None:
    case = NETWORKS[name]
    twin = build_twin(read(exported(name, dynamo=dynamo)), dtype=torch.float64)
    expected = attribute(method, case.build_clean().double(), case)
    assert relative_difference(attribute(method, twin, case), expected) <= BOUND


@pytest.mark.parametrize("name", ["mrnet", "dirty"])
@pytest.mark.parametrize("method", ["guided-backprop", "deconvolution"])
def test_the_twin_is_right_where_captum_on_the_original_is_wrong(name: str, method: str, exported: Exported) -> None:
    case = NETWORKS[name]
    clean = attribute(method, case.build_clean().double(), case)
    dirty = attribute(method, case.build().double(), case)
    twin = attribute(method, build_twin(read(exported(name, dynamo=False)), dtype=torch.float64), case)
    assert relative_difference(dirty, clean) > 0.01
    assert relative_difference(twin, clean) <= BOUND


@pytest.mark.parametrize("name", [name for name, case in NETWORKS.items() if case.rewrite is not None])
def test_a_clean_rewrite_is_the_same_network(name: str) -> None:
    case = NETWORKS[name]
    with torch.no_grad():
        found, expected = (build().double()(*case.inputs(dtype=torch.float64)) for build in (case.build_clean, case.build))
    assert relative_difference(found, expected) <= 1e-12
