"""Gradients by rules from one forward pass equal torch's and Captum's own, however they are computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.attr import Deconvolution, GuidedBackprop
from torch import fx, nn
from voxplain_server.engines.gradient_pass import GradientPass
from voxplain_server.engines.relu_rule import ReluRule
from voxplain_server.engines.ruled_relu import RuleSwitch, install_rules
from voxplain_server.engines.stem_convolution import install_stems


class Forked(nn.Module):
    """A stem, a residual sum and a ReLU whose input is read twice: not every ReLU may write over its input."""

    def __init__(self, channels: int, *, kernel: int = 3, copied: bool = False) -> None:
        super().__init__()
        self.copied = copied
        self.stem = nn.Conv3d(channels, 6, kernel, padding=kernel // 2)
        self.first, self.norm, self.second, self.third = nn.ReLU(), nn.BatchNorm3d(6), nn.ReLU(), nn.ReLU()
        self.middle = nn.Conv3d(6, 6, 3, padding=1)
        self.pool = nn.MaxPool3d(2)
        self.head = nn.Linear(6, 1)

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        early = self.first(self.stem(volumes))
        inner = self.middle(early)
        joined = self.second(self.norm(inner)) + self.third(inner * 1.0 if self.copied else inner) + early
        pooled: torch.Tensor = self.head(self.pool(joined).mean(dim=(2, 3, 4)))
        return pooled[:, 0]


def _network(channels: int, **changes: Any) -> nn.Module:
    torch.manual_seed(3)
    network = Forked(channels, **changes).double().eval().requires_grad_(False)
    nn.init.normal_(network.get_buffer("norm.running_mean"))
    return network


def _ruled(network: nn.Module) -> tuple[fx.GraphModule, RuleSwitch]:
    twin, switch = fx.symbolic_trace(network), RuleSwitch()
    install_rules(twin, switch)
    install_stems(twin)
    return twin, switch


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("shape", [(6, 8, 10), (7, 9, 6), (4, 5, 7)])
@pytest.mark.parametrize(("channels", "kernel"), [(4, 3), (1, 5), (12, 3)])
def test_three_rules_of_one_forward_pass_equal_torch_and_captum(shape: tuple[int, ...], channels: int, kernel: int) -> None:
    volumes = torch.randn(1, channels, *shape, dtype=torch.float64)
    # Copied, because Captum is wrong where a ReLU's input has another reader: see below.
    plain = _network(channels, kernel=kernel, copied=True)
    point = volumes.clone().requires_grad_()
    expected = {ReluRule.PLAIN: torch.autograd.grad(plain(point)[0], point)[0]}
    expected[ReluRule.GUIDED] = GuidedBackprop(plain).attribute(point).detach()
    expected[ReluRule.DECONVOLUTION] = Deconvolution(plain).attribute(point).detach()
    twin, switch = _ruled(_network(channels, kernel=kernel))
    passed = GradientPass(twin, switch, [volumes])
    for rule in (ReluRule.DECONVOLUTION, ReluRule.PLAIN, ReluRule.GUIDED, ReluRule.PLAIN):
        (found,) = passed.gradients(rule)
        torch.testing.assert_close(found, expected[rule], rtol=1e-11, atol=1e-13)
    assert passed.score == plain(volumes)[0].item()
    assert not torch.allclose(expected[ReluRule.GUIDED], expected[ReluRule.PLAIN])


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_where_a_relu_shares_its_input_captum_drops_the_gradient_of_the_other_reader_and_we_do_not() -> None:
    point = torch.randn(1, 4, 6, 8, 10, dtype=torch.float64, requires_grad=True)
    right = Deconvolution(_network(4, copied=True)).attribute(point).detach()
    captum = Deconvolution(_network(4)).attribute(point).detach()
    (found,) = GradientPass(*_ruled(_network(4)), [point]).gradients(ReluRule.DECONVOLUTION)
    torch.testing.assert_close(found, right, rtol=1e-11, atol=1e-13)
    assert (captum - right).abs().max() > 0.01 * right.abs().max()


def test_a_layer_keeps_its_output_although_a_relu_writes_over_it() -> None:
    volumes = torch.randn(1, 4, 6, 6, 6, dtype=torch.float64)
    plain = _network(4)
    twin, switch = _ruled(_network(4))
    passed = GradientPass(twin, switch, [volumes], layers=[twin.get_submodule("stem")])
    torch.testing.assert_close(passed.outputs[0], plain.get_submodule("stem")(volumes))
    assert (passed.outputs[0] < 0).any()
    begun_there = GradientPass(twin, switch, [volumes], layers=[twin.get_submodule("stem")], from_layers=True)
    torch.testing.assert_close(begun_there.layer_gradients()[0], passed.layer_gradients()[0])
    torch.testing.assert_close(begun_there.outputs[0], passed.outputs[0])


def test_only_inputs_that_go_nowhere_else_have_a_stem() -> None:
    class Skipping(Forked):
        def forward(self, volumes: torch.Tensor) -> torch.Tensor:
            return super().forward(volumes) + volumes.mean(dim=(1, 2, 3, 4))

    assert list(install_stems(fx.symbolic_trace(_network(4)))) == ["volumes"]
    assert install_stems(fx.symbolic_trace(Skipping(4))) == {}
