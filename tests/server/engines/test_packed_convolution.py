"""Convolutions whose weights stand as oneDNN reads them: equal to torch's own, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.nn import functional
from voxplain_server.engines import packed_convolution
from voxplain_server.engines.memory_format import channels_last
from voxplain_server.engines.packed_convolution import PackedConvolution, can_pack, is_packable
from voxplain_server.engines.packed_twin import install_packed

PLAIN: dict[int, Callable[..., torch.Tensor]] = {2: functional.conv2d, 3: functional.conv3d}
CLOSE = 2e-6


def gap(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest difference over the largest value of the answer in float64."""
    return float((found.double() - exact).abs().max() / exact.abs().max().clamp(min=1.0))


def test_this_build_of_torch_can_pack() -> None:
    assert can_pack(torch.zeros(2, 2, 3, 3, 3))
    assert not can_pack(torch.zeros(2, 2, 3, 3, 3, dtype=torch.float64))
    assert not can_pack(torch.zeros(2, 2, 3))


@settings(max_examples=60)
@given(st.data())
def test_a_packed_convolution_answers_as_float64_does(data: st.DataObject) -> None:
    rank, groups = data.draw(st.sampled_from((2, 3))), data.draw(st.sampled_from((1, 1, 2)))
    inputs, outputs, batch = (
        groups * data.draw(st.integers(1, 20)),
        groups * data.draw(st.integers(1, 20)),
        data.draw(st.integers(1, 3)),
    )
    kernel, stride, dilation = ([data.draw(st.integers(1, most)) for _ in range(rank)] for most in (3, 2, 2))
    padding = [data.draw(st.integers(0, 2)) for _ in range(rank)]
    sizes = [(width - 1) * spread + data.draw(st.integers(1, 6)) for width, spread in zip(kernel, dilation, strict=True)]
    torch.manual_seed(data.draw(st.integers(0, 9)))
    value, weight, bias = (
        torch.randn(batch, inputs, *sizes),
        torch.randn(outputs, inputs // groups, *kernel),
        torch.randn(outputs),
    )
    relu = data.draw(st.booleans())
    packed = PackedConvolution(weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups, relu=relu)
    exact = PLAIN[rank](value.double(), weight.double(), bias.double(), stride, padding, dilation, groups)
    with torch.inference_mode():
        assert gap(packed(channels_last(value)), exact.relu() if relu else exact) <= CLOSE
        # The order of memory that it is given does not matter.
        assert torch.equal(packed(value), packed(channels_last(value)))


def test_gradients_flow_through_a_packed_twin() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv3d(2, 5, 3, padding=1),
        nn.ReLU(),
        nn.Conv3d(5, 7, (3, 1, 2), padding=(2, 0, 1), dilation=(2, 1, 1)),
        nn.Conv3d(7, 6, 3, stride=2),
    ).requires_grad_(False)
    image = torch.randn(2, 2, 8, 9, 7)
    exact = image.double().requires_grad_()
    (wanted,) = torch.autograd.grad(net.double()(exact).square().sum(), exact)
    twin = fx.symbolic_trace(net.float())
    install_packed(twin)
    value = image.clone().requires_grad_()
    (found,) = torch.autograd.grad(twin(value).square().sum(), value)
    assert gap(found, wanted) <= 10 * CLOSE
    assert torch.equal(twin(image), twin(value).detach())


def test_a_hook_of_a_packed_layer_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = fx.symbolic_trace(nn.Sequential(nn.Conv3d(1, 2, 1), nn.ReLU()))
    install_packed(twin)
    seen: list[torch.Size] = []
    layer = next(module for module in twin.modules() if isinstance(module, nn.Conv3d))
    layer.register_forward_hook(lambda module, given, made: seen.append(made.shape))
    twin(torch.zeros(1, 1, 2, 2, 2))
    assert seen == [(1, 2, 2, 2, 2)]


def test_where_torch_cannot_pack_everything_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no such operator")

    packed_convolution._answers_right.cache_clear()
    monkeypatch.setattr(packed_convolution, "PackedConvolution", refuse)
    try:
        assert not is_packable(nn.Conv3d(2, 2, 3))
        twin = fx.symbolic_trace(nn.Sequential(nn.Conv3d(1, 2, 1)))
        install_packed(twin)
        assert all("forward" not in vars(module) for module in twin.modules() if isinstance(module, nn.Conv3d))
    finally:
        packed_convolution._answers_right.cache_clear()


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv1d(2, 2, 3),
        nn.Conv3d(2, 2, 3, padding="same"),
        nn.Conv2d(2, 2, 3, padding_mode="reflect"),
        nn.Conv3d(2, 2, 3).double(),
        nn.Linear(2, 2),
    ],
)
def test_other_layers_are_left_alone(other: nn.Module) -> None:
    assert not is_packable(other)
