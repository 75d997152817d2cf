"""Evaluations per second over gRPC against Captum in-process as installed: VGG-like net, 4 x 128^3, same perturbations."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from voxplain.v1 import explain_pb2, method_pb2
from voxplain_client import Client, ExplanationResult

from tests.benchmarks import vgg_like
from tests.benchmarks.bounds import figure
from tests.benchmarks.captum_peer import CLASS_INDEX, SAMPLES, labels
from tests.benchmarks.figure import Figure
from tests.benchmarks.peer import PeerRun, difference, run_captum
from tests.serving import RunningServer

EDGE = 128
SAMPLED_WINDOWS = 4096
SCORE_SPACINGS = 32
"""Differences of scores below so many float32 spacings of the score are rounding."""

SIX = ("gradient", "input-x-gradient", "guided-backprop", "deconvolution", "grad-cam", "guided-grad-cam")


def _zero() -> method_pb2.Baseline:
    return method_pb2.Baseline(zero=method_pb2.ZeroBaseline())


def _boxes() -> method_pb2.FeatureGrouping:
    return method_pb2.FeatureGrouping(label_map=method_pb2.LabelMapGrouping(), shared=False)


def _methods() -> dict[str, method_pb2.Method]:
    half = EDGE // 2
    return {
        "occlusion": method_pb2.Method(occlusion=method_pb2.Occlusion(window=[half], stride=[half], fill=_zero())),
        "feature-ablation": method_pb2.Method(feature_ablation=method_pb2.FeatureAblation(baseline=_zero(), grouping=_boxes())),
        "kernel-shap": method_pb2.Method(
            kernel_shap=method_pb2.KernelShap(baseline=_zero(), grouping=_boxes(), samples=SAMPLES)
        ),
        "lime": method_pb2.Method(lime=method_pb2.Lime(baseline=_zero(), grouping=_boxes(), samples=SAMPLES)),
    }


def measure() -> Iterator[Figure]:
    """Parity first, then rates, then the six single-pass gradient methods together."""
    case = vgg_like.case(EDGE)
    boxes = dict.fromkeys(vgg_like.MODALITIES, labels(EDGE))
    methods = _methods()
    with tempfile.TemporaryDirectory() as scratch:
        models = Path(scratch)
        vgg_like.write_bundle(models, EDGE)
        peers = {name: run_captum(name, EDGE) for name in methods}
        with RunningServer(models, ("--engine", "onnxruntime")) as server, Client(server.address) as client:

            def explain(asked: list[method_pb2.Method | str]) -> ExplanationResult:
                with client.explain(
                    model="vgg-like", volumes=case, methods=asked, labels=boxes, target=CLASS_INDEX
                ) as explanation:
                    return explanation.result()

            for name, method in methods.items():
                result = explain([method])
                yield from _rate(name, result, peers[name])
            yield from _gradients(explain([*SIX]), run_captum("gradients", EDGE))
        with RunningServer(models, ("--engine", "incremental")) as server, Client(server.address) as client:
            yield _incremental(client, case, peers["occlusion"])


def _rate(name: str, result: ExplanationResult, peer: PeerRun) -> Iterator[Figure]:
    ended = result.results[name]
    if name in peer.maps:
        ours = np.stack([result.maps[name][modality].array for modality in vgg_like.MODALITIES])
        floor = SCORE_SPACINGS * float(np.spacing(np.float32(abs(result.prediction.score))))
        detail = f"{difference(ours, peer.maps[name]):.2g} without the floor of {SCORE_SPACINGS} float32 spacings of the score"
        yield figure(f"parity/{name.replace('-', '_')}_vs_captum", difference(ours, peer.maps[name], floor), "relative", detail)
    done = ended.evaluations_done - ended.evaluations_saved
    ours_rate = done / _seconds(ended)
    theirs_rate = peer.evaluations / peer.seconds
    detail = f"{1000 / ours_rate:.0f} ms against {1000 / theirs_rate:.0f} ms an evaluation, engine {ended.engine}"
    yield figure(f"rate/{name.replace('-', '_')}_vs_captum", ours_rate / theirs_rate, "x", detail)


def _incremental(client: Client, case: dict[str, np.ndarray], peer: PeerRun) -> Figure:
    """The default occlusion (window 11, stride 5, noise), of whose 62,500 windows an even sample is evaluated."""
    budget = explain_pb2.Budget(max_evaluations=SAMPLED_WINDOWS)
    with client.explain(model="vgg-like", volumes=case, methods=["occlusion"], target=CLASS_INDEX, budget=budget) as running:
        ended = running.result().results["occlusion"]
    ours = _seconds(ended) / ended.evaluations_done
    theirs = peer.seconds / peer.evaluations
    detail = f"{1000 * ours:.1f} ms against {1000 * theirs:.0f} ms a window; {ended.evaluations_done} windows, coarse to fine"
    return figure("incremental/occlusion_11_5_noise_vs_captum", theirs / ours, "x", detail)


def _gradients(result: ExplanationResult, peer: PeerRun) -> Iterator[Figure]:
    worst = 0.0
    for name in SIX:
        maps = result.maps[name]
        ours = np.stack([maps[modality].array for modality in vgg_like.MODALITIES])
        worst = max(worst, difference(ours, np.broadcast_to(peer.maps[name], ours.shape)))
    yield figure("parity/gradient_methods_vs_captum", worst, "relative", "the worst of six, random weights, float32")
    spent = sum(_seconds(result.results[name]) for name in SIX)
    detail = f"{spent:.2f} s against {peer.seconds:.2f} s one after another, warm"
    yield figure("gradients/six_single_pass_vs_captum", peer.seconds / spent, "x", detail)


def _seconds(ended: explain_pb2.MethodResult) -> float:
    return ended.compute_duration.ToNanoseconds() / 1e9
