"""Gradient methods."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.benchmarks.bounds import figure
from tests.benchmarks.figure import Figure
from tests.benchmarks.our_calls import OurServer, compute_seconds, our_server
from tests.benchmarks.peer import PeerRun, difference, run_both, run_families
from tests.benchmarks.rows import captum_totals, row
from tests.benchmarks.subjects import SUBJECTS

SIX = ("gradient", "input-x-gradient", "guided-backprop", "deconvolution", "grad-cam", "guided-grad-cam")
REPEATS = 2
"""The faster of so many runs counts, on both sides."""
OTHERS: dict[str, int] = {"integrated-gradients": 50, "smooth-grad": 0, "gradient-shap": 0, "deep-lift": 0}
"""Methods by evaluations that Captum's time for each is multiplied with."""


def single_pass(name: str = "vgg-like", edge: int = 128) -> Iterator[Figure]:
    """The six single-pass methods together, in one call."""
    captum = run_both("single-pass", edge, name)
    with our_server(SUBJECTS[name], edge) as ours:
        result = ours.explain([*SIX])
        yield from _parity(ours, {method: ours.maps(result, method) for method in SIX}, captum["default"])
        seconds = min(compute_seconds(each.results, *SIX) for each in (result, ours.explain([*SIX])))
    theirs = {allocator: run.fixed for allocator, run in captum.items()}
    yield from row("six_single_pass", seconds, theirs, "the second call to a worker; Captum's one after another, warm")
    for method in SIX:
        yield from captum_totals(method, {allocator: run.seconds[method] for allocator, run in captum.items()})
    if name == "vgg-like" and edge == 128:
        yield figure("gradients/six_single_pass_vs_captum", theirs["default"] / seconds, "x", "default allocator")


def many_passes(name: str = "vgg-like", edge: int = 128) -> Iterator[Figure]:
    """IntegratedGradients, SmoothGrad, GradientShap and DeepLift, each in a call of its own."""
    with our_server(SUBJECTS[name], edge) as ours:
        ours.explain(["gradient"])
        spent = {
            method: min(compute_seconds(ours.explain([method]).results, method) for _ in range(1 if evaluations else REPEATS))
            for method, evaluations in OTHERS.items()
        }
    captum = run_families(tuple(OTHERS), edge, name)
    for method, evaluations in OTHERS.items():
        if method not in captum:
            yield figure(
                f"captum_fails/{method}", 1.0, "time", f"Captum fails on this network; ours took {spent[method]:.1f} s"
            )
            continue
        theirs = {allocator: run.total(evaluations) for allocator, run in captum[method].items()}
        yield from row(method.replace("-", "_"), spent[method], theirs)
        yield from captum_totals(method, theirs)


def _parity(ours: OurServer, maps: dict[str, np.ndarray], peer: PeerRun) -> Iterator[Figure]:
    # Grad-CAM's layer is the last convolution on both sides only where the network classifies through one trunk.
    layers_agree = not (ours.subject.late or ours.subject.segmentation)
    worst = {
        method: difference(each, np.broadcast_to(peer.maps[method], each.shape))
        for method, each in maps.items()
        if layers_agree or "grad-cam" not in method
    }
    told = ", ".join(f"{method} {gap:.1g}" for method, gap in worst.items())
    yield figure("parity/gradient_methods_vs_captum", max(worst.values()), "relative", f"folded alike, channels-last: {told}")
    itself = difference(peer.maps["gradient"], peer.maps["gradient-contiguous"])
    yield figure(
        "parity/captum_vs_itself_by_layout", itself, "relative", "its gradient, folded and channels-last against neither"
    )
