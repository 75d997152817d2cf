"""Captum in-process, as installed, with its best settings: run in a fresh process, prints one JSON line.

    python -m tests.benchmarks.captum_peer {occlusion|feature-ablation|kernel-shap|lime|gradients} OUT.npz EDGE

Captum's cost of a perturbation does not depend on where it is, so a few are timed. Best settings found by trying:
one perturbation in a forward pass (two cost twice as much and more memory), no progress bar, gradients off for perturbation
methods, two threads.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr import (
    Deconvolution,
    FeatureAblation,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    KernelShap,
    LayerAttribution,
    LayerGradCam,
    Lime,
    Occlusion,
    Saliency,
)

from tests.benchmarks import vgg_like

CLASS_INDEX = 1
SAMPLES = 16


def labels(edge: int) -> np.ndarray:
    """A coarse label map shared by both sides: 2 x 2 x 2 boxes, int32, labels 1..8; 0 is unused."""
    axis = (np.arange(edge) * 2) // edge
    return (1 + 4 * axis[:, None, None] + 2 * axis[None, :, None] + axis[None, None, :]).astype(np.int32)


def feature_mask(edge: int) -> torch.Tensor:
    """The same boxes, separate for each modality, as Captum wants them."""
    boxes = torch.from_numpy(labels(edge) - 1).long()
    return torch.stack([boxes + 8 * index for index in range(len(vgg_like.MODALITIES))])[None]


def timed(work: Callable[[], torch.Tensor], repeats: int = 1) -> tuple[float, torch.Tensor]:
    """Seconds of the fastest run, and the last result."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


def main() -> None:
    """Time one family and print `{"seconds": ..., "evaluations": ...}`."""
    family, out, edge = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(2)
    net = vgg_like.network(edge=edge)
    case = vgg_like.case(edge)
    inputs = torch.from_numpy(np.stack([case[name] for name in vgg_like.MODALITIES]))[None]
    with torch.no_grad():
        net(inputs)
    maps: dict[str, np.ndarray] = {}
    if family == "occlusion":
        # Captum refuses strides beyond the window, so few windows means large ones; its cost does not depend on their size.
        half = edge // 2
        with torch.no_grad():
            seconds, result = timed(
                lambda: Occlusion(net).attribute(
                    inputs, sliding_window_shapes=(1, half, half, half), strides=(1, half, half, half), target=CLASS_INDEX
                )
            )
        maps[family], evaluations = result.numpy()[0], len(vgg_like.MODALITIES) * 2**3
    elif family == "feature-ablation":
        mask = feature_mask(edge)
        with torch.no_grad():
            seconds, result = timed(lambda: FeatureAblation(net).attribute(inputs, feature_mask=mask, target=CLASS_INDEX))
        maps[family], evaluations = result.numpy()[0], int(mask.max()) + 1
    elif family in ("kernel-shap", "lime"):
        mask = feature_mask(edge)
        torch.manual_seed(0)
        np.random.seed(0)
        method = KernelShap(net) if family == "kernel-shap" else Lime(net, interpretable_model=SkLearnLinearRegression())
        seconds, _ = timed(lambda: method.attribute(inputs, feature_mask=mask, target=CLASS_INDEX, n_samples=SAMPLES))
        evaluations = SAMPLES
    else:
        last = [module for module in net if isinstance(module, torch.nn.Conv3d)][-1]
        six: dict[str, Callable[[], torch.Tensor]] = {
            "gradient": lambda: Saliency(net).attribute(inputs, target=CLASS_INDEX, abs=False),
            "input-x-gradient": lambda: InputXGradient(net).attribute(inputs, target=CLASS_INDEX),
            "guided-backprop": lambda: GuidedBackprop(net).attribute(inputs, target=CLASS_INDEX),
            "deconvolution": lambda: Deconvolution(net).attribute(inputs, target=CLASS_INDEX),
            "grad-cam": lambda: LayerAttribution.interpolate(
                LayerGradCam(net, last).attribute(inputs, target=CLASS_INDEX, relu_attributions=True), (edge,) * 3, "trilinear"
            ),
            "guided-grad-cam": lambda: GuidedGradCam(net, last).attribute(inputs, target=CLASS_INDEX),
        }
        inputs.requires_grad_()
        seconds, evaluations = 0.0, len(six)
        for name, work in six.items():
            work()
            spent, result = timed(work, repeats=3)
            seconds += spent
            maps[name] = result.detach().numpy()[0]
    np.savez(out, allow_pickle=False, **maps)
    sys.stdout.write(json.dumps({"seconds": seconds, "evaluations": evaluations}) + "\n")


if __name__ == "__main__":
    main()
