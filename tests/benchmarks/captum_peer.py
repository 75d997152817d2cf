"""Captum in-process, as installed, with its best settings: run in a fresh process, prints one JSON line for each family.

    python -m tests.benchmarks.captum_peer FAMILY[,FAMILY...] OUT.npz SUBJECT EDGE

Each family gets a network and a case of its own. The process ends with the first one that Captum cannot do on this network.

Captum's cost of a perturbation does not depend on where it is or how large, so a few are timed. Best settings found by trying:
one perturbation in a forward pass (two cost twice as much and more memory), no progress bar, gradients off for perturbation
methods, two threads, net and case in channels-last memory (two thirds of the time of contiguous memory; half of it for
gradients).

The maps of the gradients come from channels-last memory, as ours: rounding depends on the layout, and the largest of a window
whose two largest differ by rounding is another voxel then. `gradient-contiguous` is there to show by how much. For the same
reason their BatchNorm is folded, as the exporter folds that of the file which the server explains; the seconds are those of the
network as it is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr import (
    Deconvolution,
    DeepLift,
    FeatureAblation,
    FeaturePermutation,
    GradientShap,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    LayerAttribution,
    LayerGradCam,
    Lime,
    NoiseTunnel,
    Occlusion,
    Saliency,
    ShapleyValueSampling,
)
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tests.benchmarks.few_features import few_labels, many_boxes
from tests.benchmarks.subject import Scored, Subject
from tests.benchmarks.subjects import SUBJECTS

SAMPLES = (2, 14)
STEPS = 8
WALK_FEATURES = 12
Inputs = tuple[Tensor, ...]
Result = dict[str, Any]


def main() -> None:
    """Time each family and print `{"fixed": ..., "each": ...}`: seconds once, and for each evaluation."""
    families, out, subject, edge = sys.argv[1].split(","), sys.argv[2], SUBJECTS[sys.argv[3]], int(sys.argv[4])
    torch.set_num_threads(2)
    maps: dict[str, npt.NDArray[np.float32]] = {}
    for family in families:
        found = _measure(family, subject, edge)
        maps |= found.pop("maps")
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
    np.savez(out, allow_pickle=False, **maps)


def _measure(family: str, subject: Subject, edge: int) -> Result:
    """One family, after a pass that warms up."""
    net = subject.scored(edge).eval()
    inputs = subject.inputs(subject.volumes(edge))
    maps: dict[str, npt.NDArray[np.float32]] = {}
    if family == "single-pass":
        plain = torch.autograd.grad(net(*(each.requires_grad_() for each in inputs)).sum(), inputs)
        maps["gradient-contiguous"] = subject.by_modality(plain)
    net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    inputs = tuple(each.detach().contiguous(memory_format=torch.channels_last_3d) for each in inputs)
    with torch.no_grad():
        net(*inputs)
    found = FAMILIES[family](subject, edge, net, inputs)
    return found | {"maps": maps | found.get("maps", {})}


def _mask(subject: Subject, maps: Iterable[npt.NDArray[np.int32]]) -> Inputs:
    """Label maps, one for each modality, as Captum wants them: numbered through all of them from 0 on."""
    tensors, first = {}, 0
    for name, labels in zip(subject.modalities, maps, strict=True):
        tensors[name] = (labels - 1 + first).astype(np.float32)
        first += int(labels.max())
    return tuple(each.long() for each in subject.inputs(tensors))


def _boxes(subject: Subject, edge: int, count: int) -> Inputs:
    """`count` features in all."""
    share, rest = divmod(count, len(subject.modalities))
    return _mask(subject, [many_boxes(edge, share + (number < rest)) for number in range(len(subject.modalities))])


def _timed(work: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Seconds of the fastest run, and the last result."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


@torch.no_grad()
def _occlusion(subject: Subject, edge: int, net: Scored, inputs: Inputs) -> Result:
    # It refuses strides beyond the window, so few windows means large ones.
    columns = tuple((1, edge, edge // 2, edge // 2) for _ in inputs)
    seconds, maps = _timed(lambda: Occlusion(net).attribute(inputs, sliding_window_shapes=columns, strides=columns))
    each = seconds / (1 + 4 * len(subject.modalities))
    return {"fixed": each, "each": each, "maps": {"occlusion": subject.by_modality(maps)}}


@torch.no_grad()
def _feature_ablation(subject: Subject, edge: int, net: Scored, inputs: Inputs) -> Result:
    labels = few_labels(subject, edge)
    mask = _mask(subject, labels)
    seconds, maps = _timed(lambda: FeatureAblation(net).attribute(inputs, feature_mask=mask))
    each = seconds / (1 + sum(int(every.max()) for every in labels))
    return {"fixed": each, "each": each, "maps": {"feature-ablation": subject.by_modality(maps)}}


def _shapley(subject: Subject, edge: int, net: Scored, inputs: Inputs) -> Result:
    """A permutation costs a walk over all voxels of the masks, before it perturbs, and an evaluation for each feature.

    The walk is timed by itself: it takes as long as thirty evaluations and varies by more than a few of them.
    """
    mask = _boxes(subject, edge, WALK_FEATURES)
    method = ShapleyValueSampling(net)
    perturbed, walks = method._perturbation_generator, []

    def watched(*args: Any, **kwargs: Any) -> Iterator[Any]:
        steps = perturbed(*args, **kwargs)
        seconds, first = _timed(lambda: next(steps))
        walks.append(seconds)
        yield first
        yield from steps

    method._perturbation_generator = watched
    seconds, _ = _timed(lambda: method.attribute(inputs, feature_mask=mask, n_samples=1))
    (walk,) = walks
    return {"fixed": walk, "each": (seconds - walk) / (1 + WALK_FEATURES)}


@torch.no_grad()
def _feature_permutation(subject: Subject, edge: int, net: Scored, inputs: Inputs) -> Result:
    """A batch of two cases, each the other's donor: one pass explains both."""
    both = tuple(torch.cat((each, each.flip(2))).contiguous(memory_format=torch.channels_last_3d) for each in inputs)
    mask = _boxes(subject, edge, 4)
    seconds, _ = _timed(lambda: FeaturePermutation(net).attribute(both, feature_mask=mask))
    each = seconds / 5 / 2
    return {"fixed": each, "each": each}


def _regression(make: Callable[[Scored], Any]) -> Callable[[Subject, int, Scored, Inputs], Result]:
    def run(subject: Subject, edge: int, net: Scored, inputs: Inputs) -> Result:
        mask = _boxes(subject, edge, 8)
        few, many = SAMPLES
        spent = []
        # The first call imports what fits the regression.
        for count in (few, few, many):
            torch.manual_seed(0)
            np.random.seed(0)
            spent.append(_timed(lambda: make(net).attribute(inputs, feature_mask=mask, n_samples=count))[0])  # noqa: B023
        each = (spent[2] - spent[1]) / (many - few)
        return {"fixed": max(spent[1] - few * each, 0.0), "each": each}

    return run


def _single_pass(subject: Subject, edge: int, net: Scored, inputs: Inputs) -> Result:
    inputs = tuple(each.requires_grad_() for each in inputs)
    maps, seconds = {}, {}
    for name, work in _six(_folded(net), edge, inputs).items():
        maps[name] = subject.by_modality(work())
    for name, work in _six(net, edge, inputs).items():
        seconds[name], _ = _timed(work, repeats=2)
    return {"fixed": sum(seconds.values()), "each": 0.0, "seconds": seconds, "maps": maps}


def _six(net: nn.Module, edge: int, inputs: Inputs) -> dict[str, Callable[[], Any]]:
    last = [module for module in net.modules() if isinstance(module, nn.Conv3d)][-1]
    return {
        "gradient": lambda: Saliency(net).attribute(inputs, abs=False),
        "input-x-gradient": lambda: InputXGradient(net).attribute(inputs),
        "guided-backprop": lambda: GuidedBackprop(net).attribute(inputs),
        "deconvolution": lambda: Deconvolution(net).attribute(inputs),
        "grad-cam": lambda: (
            LayerAttribution.interpolate(
                LayerGradCam(net, last).attribute(inputs, relu_attributions=True), (edge,) * 3, "trilinear"
            ),
        ),
        "guided-grad-cam": lambda: GuidedGradCam(net, last).attribute(inputs),
    }


def _folded(net: nn.Module) -> nn.Module:
    """A copy with BatchNorm in the convolution before it, as the exporter leaves the file; for rows of layers, like VGG."""
    copied = deepcopy(net)
    for layers in [module for module in copied.modules() if isinstance(module, nn.Sequential)]:
        for index in range(1, len(layers)):
            before, norm = layers[index - 1], layers[index]
            if isinstance(before, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d):
                layers[index - 1], layers[index] = fuse_conv_bn_eval(before, norm), nn.Identity()
    return copied.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


def _integrated_gradients(subject: Subject, edge: int, net: Scored, inputs: Inputs) -> Result:
    method = IntegratedGradients(net)
    seconds, _ = _timed(lambda: method.attribute(inputs, n_steps=STEPS, internal_batch_size=1))
    return {"fixed": 0.0, "each": seconds / STEPS}


def _smooth_grad(subject: Subject, edge: int, net: Scored, inputs: Inputs) -> Result:
    tunnel = NoiseTunnel(Saliency(net))
    seconds, _ = _timed(
        lambda: tunnel.attribute(inputs, nt_type="smoothgrad", nt_samples=10, nt_samples_batch_size=1, stdevs=1.0), 2
    )
    return {"fixed": seconds, "each": 0.0}


def _gradient_shap(subject: Subject, edge: int, net: Scored, inputs: Inputs) -> Result:
    zeros = tuple(torch.zeros_like(each) for each in inputs)
    seconds, _ = _timed(lambda: GradientShap(net).attribute(inputs, baselines=zeros, n_samples=5, stdevs=0.0), 2)
    return {"fixed": seconds, "each": 0.0}


def _deep_lift(subject: Subject, edge: int, net: Scored, inputs: Inputs) -> Result:
    method = DeepLift(net)
    seconds, _ = _timed(lambda: method.attribute(inputs), 2)
    return {"fixed": seconds, "each": 0.0}


FAMILIES: dict[str, Callable[[Subject, int, Scored, Inputs], Result]] = {
    "occlusion": _occlusion,
    "feature-ablation": _feature_ablation,
    "shapley-value-sampling": _shapley,
    "feature-permutation": _feature_permutation,
    "kernel-shap": _regression(KernelShap),
    "lime": _regression(lambda net: Lime(net, interpretable_model=SkLearnLinearRegression())),
    "single-pass": _single_pass,
    "integrated-gradients": _integrated_gradients,
    "smooth-grad": _smooth_grad,
    "gradient-shap": _gradient_shap,
    "deep-lift": _deep_lift,
}


if __name__ == "__main__":
    main()
