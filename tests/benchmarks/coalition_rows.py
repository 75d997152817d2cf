"""Methods that switch supervoxels: Captum's few evaluations multiplied, our calls as they are."""

from __future__ import annotations

from collections.abc import Iterator

from voxplain.v1 import method_pb2
from voxplain_client import ExplanationResult

from tests.benchmarks.bounds import figure
from tests.benchmarks.few_features import few_labels
from tests.benchmarks.figure import Figure
from tests.benchmarks.occlusion_rows import parity
from tests.benchmarks.our_calls import OurServer, compute_seconds, our_server
from tests.benchmarks.peer import PeerRun, run_both, run_families
from tests.benchmarks.rows import captum_totals, row
from tests.benchmarks.subjects import SUBJECTS

PERMUTATIONS = 25
SAMPLES: dict[str, int] = {"kernel-shap": 300, "lime": 500}
HEADLINE = ("vgg-like", 128)
OUR_PERMUTATIONS, OUR_SAMPLES = 3, 24
OTHER_PERMUTATIONS, OTHER_SAMPLES = 1, 16
"""Of other networks than the headline's."""


def ablation(name: str = "vgg-like", edge: int = 128) -> Iterator[Figure]:
    """FeatureAblation: parity on supervoxels that both get, then all supervoxels."""
    subject = SUBJECTS[name]
    captum = run_both("feature-ablation", edge, name)
    with our_server(subject, edge) as ours:
        result, _, _ = _parity_call(ours)
        maps, method = ours.maps(result, "feature-ablation"), "feature-ablation"
        yield parity(method, maps, captum["default"].maps[method], result.prediction.score)
        ended = ours.explain(["feature-ablation"]).results
        seconds, features = compute_seconds(ended, "feature-ablation"), ended["feature-ablation"].features
    theirs = {allocator: run.total(features) for allocator, run in captum.items()}
    yield from row("feature_ablation_slic_50", seconds, theirs, _each(seconds, features, captum))
    yield from captum_totals("feature-ablation", theirs)
    if (name, edge) == HEADLINE:
        with our_server(subject, edge, engine="onnxruntime") as dense:
            _, done, spent = _parity_call(dense)
            yield _rate("feature-ablation", spent / done, captum["default"])


def shapley(name: str = "vgg-like", edge: int = 128) -> Iterator[Figure]:
    """ShapleyValueSampling: a few of our permutations, each as dear as any other, against Captum's."""
    captum = run_both("shapley-value-sampling", edge, name)
    walks = OUR_PERMUTATIONS if (name, edge) == HEADLINE else OTHER_PERMUTATIONS
    with our_server(SUBJECTS[name], edge) as ours:
        asked = method_pb2.ShapleyValueSampling(permutations=walks)
        ended = ours.explain([method_pb2.Method(shapley_value_sampling=asked)]).results
        seconds = compute_seconds(ended, "shapley-value-sampling") * PERMUTATIONS / walks
        features = ended["shapley-value-sampling"].features
    theirs = {allocator: run.total(features, repeats=PERMUTATIONS) for allocator, run in captum.items()}
    told = _each(seconds, PERMUTATIONS * features, captum)
    loop = f"and its loop over voxels {captum['tuned'].fixed:.1f} s for each permutation"
    yield from row("shapley_same_permutations", seconds, theirs, f"{told} {loop}; ours measured on {walks}")
    yield from captum_totals("shapley-value-sampling", theirs)


def permutation(name: str = "vgg-like", edge: int = 128) -> Iterator[Figure]:
    """FeaturePermutation: one case, one donor."""
    subject = SUBJECTS[name]
    captum = run_both("feature-permutation", edge, name)
    with our_server(subject, edge) as ours:
        donor = {modality: volume[::-1].copy() for modality, volume in subject.volumes(edge).items()}
        ended = ours.explain(["feature-permutation"], background=[donor]).results
        seconds, features = compute_seconds(ended, "feature-permutation"), ended["feature-permutation"].features
    theirs = {allocator: run.total(features) for allocator, run in captum.items()}
    yield from row("feature_permutation_case_and_donor", seconds, theirs, _each(seconds, features, captum))
    yield from captum_totals("feature-permutation", theirs)


def regression(name: str = "vgg-like", edge: int = 128) -> Iterator[Figure]:
    """KernelShap and Lime: their coalitions are drawn alike, so a few of ours stand for all."""
    subject = SUBJECTS[name]
    captum = run_families(tuple(SAMPLES), edge, name)
    drawn = OUR_SAMPLES if (name, edge) == HEADLINE else OTHER_SAMPLES
    with our_server(subject, edge) as ours:
        for method, samples in SAMPLES.items():
            seconds = _sampled(ours, method, drawn) * samples
            theirs = {allocator: run.total(samples) for allocator, run in captum[method].items()}
            told = f"{_each(seconds, samples, captum[method])}; ours measured on {drawn} samples"
            yield from row(f"{method.replace('-', '_')}_same_samples", seconds, theirs, told)
            yield from captum_totals(method, theirs)
    if (name, edge) == HEADLINE:
        with our_server(subject, edge, engine="onnxruntime") as dense:
            for method in SAMPLES:
                yield _rate(method, _sampled(dense, method, drawn), captum[method]["default"])


def _sampled(ours: OurServer, method: str, samples: int) -> float:
    """Seconds of a sample."""
    field = method.replace("-", "_")
    asked = method_pb2.Method()
    getattr(asked, field).samples = samples
    ended = ours.explain([asked]).results
    return compute_seconds(ended, method) / samples


def _parity_call(ours: OurServer) -> tuple[ExplanationResult, int, float]:
    """FeatureAblation on the few features that Captum gets too: the result, evaluations and seconds."""
    labels = dict(zip(ours.subject.modalities, few_labels(ours.subject, ours.edge), strict=True))
    asked = method_pb2.FeatureAblation(
        grouping=method_pb2.FeatureGrouping(label_map=method_pb2.LabelMapGrouping(), shared=False)
    )
    asked.baseline.zero.SetInParent()
    result = ours.explain([method_pb2.Method(feature_ablation=asked)], labels=labels)
    ended = result.results["feature-ablation"]
    return result, ended.evaluations_done - ended.evaluations_saved, compute_seconds(result.results, "feature-ablation")


def _rate(method: str, seconds: float, peer: PeerRun) -> Figure:
    """Whole passes on both sides, the same perturbations."""
    told = f"{1000 * seconds:.0f} ms against {1000 * peer.each:.0f} ms an evaluation, by whole passes of ONNX Runtime"
    return figure(f"rate/{method.replace('-', '_')}_vs_captum", peer.each / seconds, "x", told)


def _each(seconds: float, evaluations: int, captum: dict[str, PeerRun]) -> str:
    ours = 1000 * seconds / max(evaluations, 1)
    theirs = " and ".join(f"{1000 * run.each:.0f}" for run in captum.values())
    return f"{evaluations} evaluations, {ours:.0f} ms against {theirs} ms"
