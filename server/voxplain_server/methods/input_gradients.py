"""Passes through the twin, from the score back to the volumes; the methods of a call share them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from voxplain.v1.method_pb2 import Baseline

from voxplain_server.engines.engine import Differentiable
from voxplain_server.engines.relu_rule import ReluRule
from voxplain_server.methods.estimate import Maps
from voxplain_server.methods.method import Setting

if TYPE_CHECKING:
    import torch

    from voxplain_server.engines.gradient_pass import GradientPass


_FORWARD, _CASE_SCORE = "forward pass", "score of the case"


def shared_forward(setting: Setting, twin: Differentiable) -> GradientPass:
    """The forward pass of the case that the single-pass methods of a call share; it keeps the model's default layers."""

    def compute() -> GradientPass:
        try:
            layers = [twin.layer(setting.score, name) for name in setting.traits.default_cam_layers]
        except KeyError:
            # Grad-CAM says so when it is asked for; the others do without.
            layers = []
        return twin.forward_pass(setting.score, twin.tensors(setting.case.volumes), layers=layers)

    computed: GradientPass = setting.passes.remember(_FORWARD, compute)[0]
    # It outlives its memory: see free_forward.
    setting.passes.remember(_CASE_SCORE, lambda: computed.score)
    return computed


def free_forward(setting: Setting) -> None:
    """Let go of the shared forward pass: called by methods that need its memory for passes of their own."""
    setting.passes.forget(_FORWARD)


def shared_input_gradients(
    setting: Setting, twin: Differentiable, rule: ReluRule
) -> tuple[tuple[npt.NDArray[np.floating[Any]], ...], bool]:
    """Differentiate the score of the case; the methods of a call share the pass.

    Returns:
        (*spatial) for each modality, in the twin's precision, not to be changed; and whether a pass was done for it.
    """

    def differentiate() -> tuple[npt.NDArray[np.floating[Any]], ...]:
        gradients = shared_forward(setting, twin).gradients(rule)
        return tuple(gradient[0].cpu().contiguous().numpy() for gradient in gradients)

    gradients, made_now = setting.passes.remember(("input-gradients", rule), differentiate)
    return gradients, made_now


@contextmanager
def quiet_captum() -> Iterator[None]:
    """Captum warns about every hook that it sets, which is what it was asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def as_maps(tensors: Sequence[torch.Tensor]) -> Maps:
    """Tensors (1, *spatial) as maps (*spatial) in float64."""
    return tuple(tensor[0].detach().double().cpu().contiguous().numpy() for tensor in tensors)


def case_score(setting: Setting, twin: Differentiable) -> float:
    """The twin's score of the case; computed once in a call."""
    score: float = setting.passes.remember(
        _CASE_SCORE, lambda: score_at(twin.scored(setting.score), twin.tensors(setting.case.volumes))
    )[0]
    return score


def baseline_score(setting: Setting, twin: Differentiable, kind: Baseline, volumes: Sequence[torch.Tensor]) -> float:
    """The twin's score of a baseline; methods of a call that have the same one share it.

    Args:
        setting: the case and the score.
        twin: the differentiable engine.
        kind: what `volumes` were made from.
        volumes: (1, *spatial) for each modality.
    """
    # Noise is drawn for each method by itself.
    owner = setting.key if kind.WhichOneof("kind") == "normal_noise" else ""
    key = ("baseline score", owner, kind.SerializeToString(deterministic=True))
    score: float = setting.passes.remember(key, lambda: score_at(twin.scored(setting.score), volumes))[0]
    return score


def score_at(scored: torch.nn.Module, volumes: Sequence[torch.Tensor]) -> float:
    """The score at one point."""
    import torch

    with torch.no_grad():
        return float(scored(*volumes)[0])
