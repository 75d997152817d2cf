"""Convolutions that read the volumes pass gradients back by the packed kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from voxplain_server.engines import stem_convolution
from voxplain_server.engines.gradient_pass import GradientPass
from voxplain_server.engines.packed_twin import install_packed
from voxplain_server.engines.ruled_relu import RuleSwitch, install_rules
from voxplain_server.engines.stem_convolution import install_stems


class Operations(TorchDispatchMode):
    """Counts what torch does by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.counted[str(func)] += 1
        return func(*args, **(kwargs or {}))


def test_the_gradient_of_four_modalities_goes_by_the_packed_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[tuple[int, ...]] = []
    pack = stem_convolution.packed_weight

    def noted(weight: Tensor) -> Tensor:
        packed.append(tuple(pack(weight).shape))
        return pack(weight)

    monkeypatch.setattr(stem_convolution, "packed_weight", noted)
    torch.manual_seed(3)
    layers = (nn.Conv3d(4, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 1), nn.Flatten(0))
    switch, twin = RuleSwitch(), fx.symbolic_trace(nn.Sequential(*layers).eval()).requires_grad_(False)
    install_rules(twin, switch)
    install_packed(twin)
    install_stems(twin)
    volumes = torch.randn(1, 4, 8, 8, 8)
    with Operations() as seen:
        (found,) = GradientPass(twin, switch, [volumes]).gradients()
    # Four channels for each of 2 x 2 neighbours, and no backward pass of torch's.
    assert packed == [(16, 16, 3, 4, 4)]
    assert not [each for each in seen.counted if "convolution_backward" in each]
    point = volumes.clone().requires_grad_()
    (expected,) = torch.autograd.grad(nn.Sequential(*layers)(point)[0], point)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
