"""Fixtures of the perturbation methods' tests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def captum_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep Captum from rounding scores and quotients to float32 halfway, so that figures can be compared to the last digits."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch, "FloatTensor", torch.DoubleTensor)
