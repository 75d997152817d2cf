"""One backward pass through the twin, from the score to the volumes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from voxplain_server.engines.engine import Differentiable
from voxplain_server.methods.estimate import Maps
from voxplain_server.methods.method import Setting

if TYPE_CHECKING:
    import torch


class ReluRule(Enum):
    """What a ReLU does to the gradient g that comes back to it."""

    PLAIN = "plain"
    """Its derivative: g where its input was positive."""
    GUIDED = "guided"
    """max(g, 0) where its input was positive (Springenberg et al. 2015)."""
    DECONVOLUTION = "deconvolution"
    """max(g, 0), whatever its input was (Zeiler and Fergus 2014)."""


def shared_input_gradients(
    setting: Setting, twin: Differentiable, rule: ReluRule
) -> tuple[tuple[npt.NDArray[np.floating[Any]], ...], bool]:
    """Differentiate the score of the case; the methods of a call share the pass.

    Returns:
        (*spatial) for each modality, in the twin's precision, not to be changed; and whether a pass was done for it.
    """

    def differentiate() -> tuple[npt.NDArray[np.floating[Any]], ...]:
        gradients = input_gradients(twin.scored(setting.score), twin.tensors(setting.case.volumes), rule)
        return tuple(gradient[0].cpu().contiguous().numpy() for gradient in gradients)

    gradients, made_now = setting.passes.remember(("input-gradients", rule), differentiate)
    return gradients, made_now


def input_gradients(
    scored: torch.nn.Module, volumes: Sequence[torch.Tensor], rule: ReluRule = ReluRule.PLAIN
) -> tuple[torch.Tensor, ...]:
    """Differentiate a scored twin at one point, by Captum.

    Args:
        scored: from volumes (1, *spatial) to the score (1,).
        volumes: the point; left without gradients.
        rule: how a ReLU passes the gradient back.

    Returns:
        (1, *spatial) for each modality.
    """
    from captum.attr import Deconvolution, GuidedBackprop, Saliency

    point = tuple(volume.detach().clone().requires_grad_() for volume in volumes)
    with quiet_captum():
        if rule is ReluRule.PLAIN:
            found = Saliency(scored).attribute(point, abs=False)
        else:
            kind = GuidedBackprop if rule is ReluRule.GUIDED else Deconvolution
            found = kind(scored).attribute(point)
    return tuple(gradient.detach() for gradient in found)


@contextmanager
def quiet_captum() -> Iterator[None]:
    """Captum warns about every hook that it sets, which is what it was asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def as_maps(tensors: Sequence[torch.Tensor]) -> Maps:
    """Tensors (1, *spatial) as maps (*spatial) in float64."""
    return tuple(tensor[0].detach().double().cpu().contiguous().numpy() for tensor in tensors)


def score_at(scored: torch.nn.Module, volumes: Sequence[torch.Tensor]) -> float:
    """The score at one point."""
    import torch

    with torch.no_grad():
        return float(scored(*volumes)[0])
