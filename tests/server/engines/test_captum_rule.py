"""DeepLIFT by Captum's rules equals Captum on every kind of graph, and takes case and reference apart where it may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import DeepLift
from torch import Tensor, fx, nn
from voxplain_server.engines import captum_rule
from voxplain_server.engines.captum_rule import captum_attributions, halves_are_apart
from voxplain_server.engines.ruled_relu import RuleSwitch, install_rules
from voxplain_server.engines.stem_convolution import install_stems

from tests.server.engines.live_bytes import LiveBytes

pytestmark = pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
PARITY = 1e-9


class Graph(nn.Module):
    """Layers by name, put together by a function."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, image: Tensor) -> Tensor:
        answer: Tensor = self._forward(self, image)
        return answer


class Scored(nn.Module):
    """From volumes (batch, *spatial) to a weighted sum of a twin's answers, (batch,) float64."""

    def __init__(self, twin: fx.GraphModule, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.twin, self.activation = twin, activation

    def forward(self, *volumes: Tensor) -> Tensor:
        answers = self.twin(torch.stack(volumes, dim=1).contiguous(memory_format=torch.channels_last_3d)).double().flatten(1)
        if self.activation is not None:
            answers = self.activation(answers)
        weights = torch.randn(answers.shape[1], generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        score: Tensor = (answers * weights).sum(dim=1)
        return score


def _conv(before: int = 2, after: int = 3) -> nn.Module:
    return nn.Conv3d(before, after, 3, padding=1)


def _slices(net: Any, image: Tensor) -> Tensor:
    """Slices in the batch of the layers, as networks for stacks of planes do."""
    batch, _, slices = image.shape[:3]
    planes = image.movedim(2, 1).flatten(0, 1)
    answers: Tensor = net.pool(net.relu(net.conv(planes)))
    means: Tensor = torch.unflatten(answers, 0, (batch, slices)).mean(dim=1)
    return means


APART: dict[str, Callable[[], Graph]] = {
    "conv relu pool": lambda: Graph(
        lambda net, image: net.last(net.pool(net.relu(net.conv(image)))),
        **{"conv": _conv(), "relu": nn.ReLU(), "pool": nn.MaxPool3d(2), "last": _conv(3)},
    ),
    "conv leaky pool overlapping": lambda: Graph(
        lambda net, image: net.last(net.pool(net.leaky(net.conv(image)))),
        **{"conv": _conv(), "leaky": nn.LeakyReLU(0.2), "pool": nn.MaxPool3d(3, 2, 1), "last": _conv(3)},
    ),
    "residual": lambda: Graph(
        lambda net, image: net.second(net.again(net.first(net.conv(image))) + net.other(image)),
        **{"conv": _conv(), "first": nn.ReLU(), "other": _conv(), "again": _conv(3), "second": nn.Sigmoid()},
    ),
    "pool and skip": lambda: Graph(
        lambda net, image: torch.cat([(early := net.relu(net.conv(image))).flatten(1), net.pool(early).flatten(1)], dim=1),
        **{"conv": _conv(), "relu": nn.ReLU(), "pool": nn.MaxPool3d(2)},
    ),
    "smooth": lambda: Graph(
        lambda net, image: net.tanh(net.last(net.elu(net.conv(image)))),
        **{"conv": _conv(), "elu": nn.ELU(), "last": _conv(3), "tanh": nn.Tanh()},
    ),
    "plain gradient of gelu": lambda: Graph(
        lambda net, image: net.relu(net.last(net.gelu(net.conv(image)))),
        **{"conv": _conv(), "gelu": nn.GELU(), "last": _conv(3), "relu": nn.ReLU()},
    ),
}
TOGETHER: dict[str, Callable[[], Graph]] = {
    "conv pool": lambda: Graph(
        lambda net, image: net.last(net.pool(net.conv(image))), **{"conv": _conv(), "pool": nn.MaxPool3d(2), "last": _conv(3)}
    ),
    "conv pool relu": lambda: Graph(
        lambda net, image: net.last(net.relu(net.pool(net.conv(image)))),
        **{"conv": _conv(), "pool": nn.MaxPool3d(2), "relu": nn.ReLU(), "last": _conv(3)},
    ),
    "one rule behind another": lambda: Graph(
        lambda net, image: net.last(net.sigmoid(net.relu(net.conv(image)))),
        **{"conv": _conv(), "relu": nn.ReLU(), "sigmoid": nn.Sigmoid(), "last": _conv(3)},
    ),
    "an operand with two readers": lambda: Graph(
        lambda net, image: net.last(net.relu(inner := net.conv(image)) + 0.5 * inner),
        **{"conv": _conv(), "relu": nn.ReLU(), "last": _conv(3)},
    ),
    "an identity between": lambda: Graph(
        lambda net, image: net.last(net.sigmoid(net.same(net.relu(net.conv(image))))),
        **{"conv": _conv(), "relu": nn.ReLU(), "same": nn.Identity(), "sigmoid": nn.Sigmoid(), "last": _conv(3)},
    ),
    "softmax": lambda: Graph(
        lambda net, image: net.softmax(net.conv(image).mean(dim=(2, 3, 4))), **{"conv": _conv(), "softmax": nn.Softmax(dim=1)}
    ),
}


def _scored(make: Callable[[], Graph], activation: nn.Module | None = None) -> Scored:
    torch.manual_seed(5)
    twin = fx.symbolic_trace(make().double().eval()).requires_grad_(False)
    install_rules(twin, RuleSwitch())
    install_stems(twin)
    return Scored(twin, activation)


def _pair() -> tuple[list[Tensor], list[Tensor]]:
    """Two modalities of 6 x 8 x 4, with a background where case and reference agree."""
    generator = torch.Generator().manual_seed(6)
    case = [torch.randn((1, 6, 8, 4), generator=generator, dtype=torch.float64) for _ in range(2)]
    reference = [0.1 * torch.randn((1, 6, 8, 4), generator=generator, dtype=torch.float64) for _ in range(2)]
    for volume, absent in zip(case, reference, strict=True):
        absent[0, :3] = volume[0, :3]
    return case, reference


def _assert_captums(scored: Scored) -> None:
    case, reference = _pair()
    found, case_score, reference_score = captum_attributions(scored, case, reference)
    expected = DeepLift(scored).attribute(tuple(volume.clone().requires_grad_() for volume in case), tuple(reference))
    largest = max(float(each.detach().abs().max()) for each in expected)
    assert largest > 0
    assert (
        max(float((mine - theirs.detach()).abs().max()) for mine, theirs in zip(found, expected, strict=True))
        <= PARITY * largest
    )
    with torch.no_grad():
        assert case_score == pytest.approx(float(scored(*case)[0]), abs=1e-12)
        assert reference_score == pytest.approx(float(scored(*reference)[0]), abs=1e-12)


@pytest.mark.parametrize("name", APART)
def test_case_and_reference_apart_give_what_captum_gives(name: str) -> None:
    scored = _scored(APART[name])
    assert halves_are_apart(scored)
    _assert_captums(scored)


@pytest.mark.parametrize("name", TOGETHER)
def test_where_captums_rules_join_them_they_stay_together(name: str) -> None:
    scored = _scored(TOGETHER[name])
    assert not halves_are_apart(scored)
    _assert_captums(scored)


@pytest.mark.parametrize(
    ("activation", "apart"), [(nn.Sigmoid(), True), (nn.Softmax(dim=1), False)], ids=["sigmoid", "softmax"]
)
def test_an_activation_behind_the_twin_counts_too(activation: nn.Module, apart: bool) -> None:
    scored = _scored(APART["conv relu pool"], activation)
    assert halves_are_apart(scored) == apart
    _assert_captums(scored)


def test_an_activation_behind_a_twin_that_ends_in_another_is_left_to_captum() -> None:
    assert not halves_are_apart(_scored(APART["residual"], nn.Sigmoid()))


def test_slices_in_the_batch_of_a_pooling_are_left_to_captum(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Graph:
        return Graph(_slices, conv=nn.Conv2d(2, 3, 3), relu=nn.ReLU(), pool=nn.MaxPool2d(2))

    asked = []
    stacked = captum_rule._stacked

    def noted(*given: Any) -> captum_rule.Attributions:
        asked.append(1)
        return stacked(*given)

    monkeypatch.setattr(captum_rule, "_stacked", noted)
    scored = _scored(make)
    assert halves_are_apart(scored)
    _assert_captums(scored)
    assert asked == [1]


def _vgg_like() -> Graph:
    layers = {"a": _conv(2, 8), "b": nn.ReLU(), "c": nn.MaxPool3d(2), "d": _conv(8, 16), "e": nn.ReLU(), "f": _conv(16, 16)}
    layers |= {"g": nn.ReLU(), "h": nn.MaxPool3d(2), "i": nn.AdaptiveAvgPool3d(1)}

    def forward(net: Any, image: Tensor) -> Tensor:
        for name in layers:
            image = getattr(net, name)(image)
        return image

    return Graph(forward, **layers)


def test_apart_they_need_two_forward_passes_one_backward_pass_and_less_than_half_of_captums_memory() -> None:
    scored = _scored(_vgg_like)
    case = [torch.randn(1, 16, 16, 16, dtype=torch.float64) for _ in range(2)]
    reference = [torch.zeros_like(volume) for volume in case]
    rows: list[int] = []
    convolution = scored.twin.get_submodule("d")
    convolution.register_forward_hook(lambda _module, _inputs, output: rows.append(len(output)))
    with LiveBytes() as ours:
        captum_attributions(scored, case, reference)
    assert rows == [1, 1]
    with LiveBytes() as captums:
        DeepLift(scored).attribute(tuple(volume.clone().requires_grad_() for volume in case), tuple(reference))
    assert rows == [1, 1, 2]
    assert ours.peak < 0.5 * captums.peak


def test_together_they_keep_no_copies_of_what_layers_read_and_give() -> None:
    scored = _scored(TOGETHER["one rule behind another"])
    case = [torch.randn(1, 16, 16, 16, dtype=torch.float64) for _ in range(2)]
    reference = [torch.zeros_like(volume) for volume in case]
    with LiveBytes() as ours:
        captum_attributions(scored, case, reference)
    with LiveBytes() as captums:
        DeepLift(scored).attribute(tuple(volume.clone().requires_grad_() for volume in case), tuple(reference))
    assert ours.peak < 0.9 * captums.peak
