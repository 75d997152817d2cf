"""DeepLIFT: the rescale rule by hand, Captum, the complete rules against slow references, and completeness."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import DeepLift
from torch import Tensor, nn
from voxplain.v1 import method_pb2
from voxplain_server.engines.rescale_rule import multipliers
from voxplain_server.methods.deep_lift import METHOD

from tests.server.engines.tiny_models import TINY_MODELS, early, fixed, probability
from tests.server.methods.by_hand import ByHand, modalities
from tests.server.methods.gradient_setting import (
    Make,
    Peer,
    assert_parity,
    attribute,
    by_modality,
    engine,
    peer_inputs,
    setting,
)

BATCHED = [make for make in TINY_MODELS if not make.__name__.startswith(("fixed", "knee"))]
WITHOUT_SOFTMAX = [make for make in BATCHED if make is not probability]
COMPLETE, CAPTUM = method_pb2.MAX_POOL_RULE_COMPLETE, method_pb2.MAX_POOL_RULE_CAPTUM
MEAN = method_pb2.Baseline(modality_mean=method_pb2.ModalityMeanBaseline())
pytestmark = pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")


@pytest.mark.parametrize("rule", [CAPTUM, COMPLETE], ids=["captum", "complete"])
@pytest.mark.parametrize("make", WITHOUT_SOFTMAX, ids=lambda make: make.__name__)
def test_both_rules_equal_captum_where_it_is_sound(make: Make, rule: int, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    means = tuple(np.full(volume.shape, volume.mean(dtype=np.float64), dtype=np.float32) for volume in tiny.case.volumes)
    baselines = tuple(tensor.detach() for tensor in peer_inputs(tiny, means))
    expected = by_modality(tiny, DeepLift(Peer(tiny)).attribute(peer_inputs(tiny), baselines))
    estimate = attribute(tiny, METHOD, baseline=MEAN, max_pool_rule=rule)
    assert_parity(estimate.maps, expected)
    assert estimate.completeness_gap == pytest.approx(0.0, abs=1e-12)
    assert estimate.cautions == ()


def test_captums_softmax_is_not_complete_and_ours_is(tmp_path: Path) -> None:
    tiny = probability(tmp_path)
    expected = by_modality(tiny, DeepLift(Peer(tiny)).attribute(peer_inputs(tiny)))
    captum, complete = (attribute(tiny, METHOD, max_pool_rule=rule) for rule in (CAPTUM, COMPLETE))
    assert_parity(captum.maps, expected)
    assert captum.completeness_gap is not None and complete.completeness_gap is not None
    assert abs(captum.completeness_gap) > 1e-3
    assert [code for code, _ in captum.cautions] == ["COMPLETENESS_GAP"]
    assert abs(complete.completeness_gap) < 1e-10


@pytest.mark.parametrize("make", TINY_MODELS, ids=lambda make: make.__name__)
def test_contributions_sum_to_the_difference_of_the_scores(make: Make, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    estimate = attribute(tiny, METHOD, max_pool_rule=COMPLETE)
    assert estimate.maps is not None and estimate.completeness_gap is not None and estimate.baseline_score is not None
    with torch.no_grad():
        f_case = float(Peer(tiny)(*peer_inputs(tiny)))
        f_zero = float(Peer(tiny)(*[0 * tensor for tensor in peer_inputs(tiny)]))
    total = sum(values.sum() for values in estimate.maps)
    assert estimate.baseline_score == pytest.approx(f_zero, abs=1e-12)
    assert estimate.completeness_gap == pytest.approx(f_case - f_zero - total, abs=1e-12)
    if "knee" not in make.__name__:  # a maximum over slices has no rule
        assert abs(estimate.completeness_gap) < 1e-6 * abs(f_case - f_zero)


@pytest.mark.parametrize("rule", [CAPTUM, COMPLETE], ids=["captum", "complete"])
def test_it_is_the_rescale_rule_of_the_paper(rule: int, tmp_path: Path) -> None:
    tiny = early(tmp_path)
    net = ByHand(tiny)
    case, zero = net.forward(net.image), net.forward(torch.zeros_like(net.image))

    def rescale(gradient: Tensor, after: Tensor, after_zero: Tensor, before: Tensor, before_zero: Tensor) -> Tensor:
        found = torch.zeros_like(gradient)
        for place in itertools.product(*map(range, before.shape)):
            difference = before[place] - before_zero[place]
            slope = (after[place] - after_zero[place]) / difference if abs(difference) > 1e-10 else (before[place] > 0).double()
            found[place] = gradient[place] * slope
        return found

    gradient = rescale(net.behind_second(case), case.second, zero.second, case.before_second, zero.before_second)
    gradient = rescale(net.back_through_second(gradient), case.first, zero.first, case.before_first, zero.before_first)
    expected = modalities(net.back_through_first(gradient) * net.image)
    assert_parity(attribute(tiny, METHOD, max_pool_rule=rule).maps, expected)


def test_a_fixed_batch_takes_the_complete_rule_and_refuses_captums(tmp_path: Path) -> None:
    tiny = fixed(tmp_path)
    assert METHOD.defaults(tiny.model).max_pool_rule == COMPLETE  # type: ignore[attr-defined]
    assert METHOD.defaults(None).max_pool_rule == CAPTUM  # type: ignore[attr-defined]
    refused = METHOD.violations(setting(tiny, METHOD, max_pool_rule=CAPTUM).params, tiny.model)
    assert [(each.field, each.reason) for each in refused] == [("max_pool_rule", "RULE_NEEDS_BATCH")]
    assert not METHOD.violations(METHOD.defaults(tiny.model), tiny.model)


def test_captum_leaves_nothing_of_the_case_on_the_twin(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    twin = engine(tiny)
    METHOD.attribute(setting(tiny, METHOD), twin, advanced=lambda passes: None, cancelled=lambda: False)
    for module in twin.scored(tiny.score).modules():
        assert not {"input", "output", "input_ref", "output_ref"} & set(vars(module))
        assert not module._forward_hooks and not module._forward_pre_hooks


class Scored(nn.Module):
    """One volume, (1, *spatial), through layers to the weighted sum of all that comes out."""

    def __init__(self, *layers: nn.Module, seed: int = 0) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers).double()
        self._seed = seed

    def forward(self, volume: Tensor) -> Tensor:
        answers: Tensor = self.layers(volume[:, None]).flatten(1)
        weights = torch.randn(answers.shape[1], generator=torch.Generator().manual_seed(self._seed), dtype=torch.float64)
        return (answers * weights).sum(dim=1)


def _pair(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    case, reference = (torch.randn((1, *shape), generator=generator, dtype=torch.float64) for _ in range(2))
    # Places where both agree, and ties.
    case[0, 0] = reference[0, 0]
    reference[0, 1] = 0.25
    return case, reference


POOLS = [
    nn.MaxPool2d(2),
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(3, 1),
    nn.MaxPool2d(2, 2, ceil_mode=True),
    nn.MaxPool2d(2, 1, dilation=2),
    nn.AdaptiveMaxPool2d(1),
]


@pytest.mark.parametrize("pool", POOLS, ids=repr)
def test_a_window_gives_its_difference_to_one_voxel(pool: nn.Module) -> None:
    case, reference = _pair((7, 6))
    scored = Scored(pool)
    (slopes,), _, _ = multipliers(scored, [case], [reference])

    weights = torch.randn(pool(case).numel(), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = np.zeros((7, 6))
    for window, voxels in enumerate(_windows(pool, (7, 6))):
        highest, highest_reference = (_argmax(volume, voxels) for volume in (case, reference))
        top, top_reference = float(case[(0, *highest)]), float(reference[(0, *highest_reference)])
        carrier = highest if top >= top_reference else highest_reference
        expected[carrier] += float(weights[window]) * (top - top_reference)
    contributions = (slopes * (case - reference))[0].numpy()
    np.testing.assert_allclose(contributions, expected, atol=1e-12)


def _argmax(volume: Tensor, voxels: list[tuple[int, ...]]) -> tuple[int, ...]:
    return voxels[int(np.argmax([float(volume[(0, *voxel)]) for voxel in voxels]))]


def _windows(pool: nn.Module, shape: tuple[int, int]) -> list[list[tuple[int, ...]]]:
    if isinstance(pool, nn.AdaptiveMaxPool2d):
        return [list(itertools.product(*map(range, shape)))]
    assert isinstance(pool, nn.MaxPool2d)
    out = pool(torch.zeros(1, 1, *shape)).shape[2:]
    k, s, p, d = (int(str(each)) for each in (pool.kernel_size, pool.stride, pool.padding, pool.dilation))
    found = []
    for start in itertools.product(*map(range, out)):
        places = itertools.product(*[[at * s - p + d * step for step in range(k)] for at in start])
        found.append([place for place in places if all(0 <= at < size for at, size in zip(place, shape, strict=True))])
    return found


@pytest.mark.parametrize("pool", [nn.MaxPool3d(2), nn.MaxPool3d(3, 2, 1), nn.AdaptiveMaxPool3d(1)], ids=repr)
def test_nets_with_max_pooling_are_complete(pool: nn.Module) -> None:
    torch.manual_seed(1)
    scored = Scored(
        nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(4, 4, 3, padding=1), pool, nn.ReLU(), nn.Flatten()
    )
    case, reference = _pair((8, 8, 8))
    (slopes,), f_case, f_reference = multipliers(scored, [case], [reference])
    total = float((slopes * (case - reference)).sum())
    assert abs(f_case - f_reference - total) <= 1e-6 * abs(f_case - f_reference)
    (captum,) = DeepLift(scored).attribute((case.requires_grad_(),), (reference,))
    assert abs(f_case - f_reference - float(captum.sum().detach())) > 1e-4 * abs(f_case - f_reference)


def test_max_pooling_alone_equals_captum() -> None:
    torch.manual_seed(1)
    scored = Scored(nn.Conv3d(1, 3, 3, padding=1), nn.MaxPool3d(2), nn.Flatten())
    case, reference = _pair((6, 8, 4))
    (slopes,), _, _ = multipliers(scored, [case], [reference])
    (captum,) = DeepLift(scored).attribute((case.requires_grad_(),), (reference,))
    expected = captum[0].detach().numpy()
    assert_parity([(slopes * (case - reference))[0].detach().numpy()], [expected])


@pytest.mark.parametrize(
    "activation",
    [nn.ELU(), nn.LeakyReLU(), nn.Sigmoid(), nn.Tanh(), nn.Softplus(), nn.GELU(), nn.PReLU(3), nn.Hardswish(), nn.Mish()],
    ids=repr,
)
def test_every_voxelwise_activation_is_complete(activation: nn.Module) -> None:
    torch.manual_seed(2)
    scored = Scored(nn.Conv2d(1, 3, 3, padding=1), activation, nn.Conv2d(3, 2, 3))
    case, reference = _pair((6, 7))
    (slopes,), f_case, f_reference = multipliers(scored, [case], [reference])
    total = float((slopes * (case - reference)).sum())
    assert f_case - f_reference == pytest.approx(total, rel=1e-9)
    if isinstance(activation, (nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus)):
        (captum,) = DeepLift(scored).attribute((case.requires_grad_(),), (reference,))
        assert_parity([(slopes * (case - reference))[0].detach().numpy()], [captum[0].detach().numpy()])


def test_a_case_that_is_its_own_reference_has_the_gradient_as_multiplier() -> None:
    torch.manual_seed(3)
    scored = Scored(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.PReLU(3))
    case, _ = _pair((8, 8))
    (slopes,), f_case, f_reference = multipliers(scored, [case], [case])
    point = case.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(scored(point)[0], point)
    assert f_case == f_reference
    torch.testing.assert_close(slopes, gradient)
