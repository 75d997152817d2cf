"""Looks at one bundle in a sacrificial process: reads it, builds the twin, lets both engines answer, measures."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from voxplain.errors import UnsupportedByModel
from voxplain.worker.v1 import worker_pb2

from voxplain_server.engines.onnx_engine import OnnxEngine
from voxplain_server.graph.cam_layer import find_cam_layer
from voxplain_server.graph.dependence import dependence
from voxplain_server.graph.onnx_graph import Graph
from voxplain_server.graph.traits import has_relu, operators_without_deep_lift_rule
from voxplain_server.graph.unsupported_operator import UnsupportedOperator
from voxplain_server.models.bundle_place import BundlePlace
from voxplain_server.models.case import Case
from voxplain_server.models.description import model_to_json
from voxplain_server.models.loading import LoadedModel, load_model
from voxplain_server.models.model import Model
from voxplain_server.models.model_refused import ModelRefused
from voxplain_server.models.nifti_file import read_nifti
from voxplain_server.models.remote_access import NO_REMOTE, RemoteAccess
from voxplain_server.models.remote_loading import load_remote_model, names_remote
from voxplain_server.models.signature_reading import read_signature
from voxplain_server.models.traits import ModelTraits
from voxplain_server.workers.engine_probe import choose_engine
from voxplain_server.workers.faults import describe_fault
from voxplain_server.workers.host_facts import device_name, package_versions
from voxplain_server.workers.measurement_cache import Measurement, MeasurementCache, measurement_key
from voxplain_server.workers.model_description import describe_model
from voxplain_server.workers.probe_cases import PROBE_EDGES, probe_cases
from voxplain_server.workers.probe_timing import any_score, timed
from voxplain_server.workers.remote_check import check_remote_model
from voxplain_server.workers.slic_rate import slic_rate

GRADIENT_SECONDS = 1.5
"""About how long gradient passes may be timed: the first ones find no memory yet."""


@dataclass(frozen=True, slots=True, eq=False)
class _Answered:
    case: Case
    answer: npt.NDArray[np.float32]


def check_bundle(
    asked: worker_pb2.Check, *, threads: int, device: Literal["cpu", "cuda"] = "cpu", remote: RemoteAccess = NO_REMOTE
) -> worker_pb2.Checked:
    """Check one version of a model.

    Args:
        asked: which.
        threads: compute threads.
        device: where it computes.
        remote: which inference servers bundles may name.

    Raises:
        voxplain.errors.UnsupportedByModel: it cannot be served; reason and message are for the operator and for clients.
    """
    try:
        place = BundlePlace(asked.name, asked.version, Path(asked.folder))
        if names_remote(place):
            model = load_remote_model(place, access=remote)
            open_background(model)
            return check_remote_model(model, access=remote, threads=threads)
        loaded = load_model(place)
        open_background(loaded.model)
    except ModelRefused as refused:
        raise UnsupportedByModel(refused.reason, refused.message) from None
    model = loaded.model
    try:
        evaluator = OnnxEngine(loaded.proto, model, threads=threads, device=device)
    except UnsupportedByModel:
        raise
    except Exception as error:
        # Logged with an id by describe_fault; its text may quote the file.
        describe_fault(error)
        message = "ONNX Runtime cannot load the model file. Run it there once yourself, and export it anew."
        raise UnsupportedByModel("ONNX_RUNTIME_REFUSED", message) from None
    answered = _probe(model, evaluator)
    cache = MeasurementCache(Path(asked.cache) if asked.cache else None)
    key = measurement_key(_facts(model, asked.engine, threads=threads, device=device))
    measured = cache.find(key)
    traits = _traits(loaded, answered, threads=threads, device=device)
    if measured is None:
        measured = _measure(loaded, evaluator, answered[0], traits, preferred=asked.engine, threads=threads, device=device)
        cache.keep(key, measured)
    choice = measured.engine_choice
    traits = replace(
        traits,
        evaluation_seconds=measured.evaluation_seconds,
        gradient_seconds=measured.gradient_seconds,
        slic_seconds_per_voxel=measured.slic_seconds_per_voxel,
        engine_choice=choice,
    )
    return worker_pb2.Checked(
        model_json=model_to_json(model, traits), description=describe_model(model, traits), engine=choice.engine
    )


def _measure(
    loaded: LoadedModel,
    evaluator: OnnxEngine,
    answered: _Answered,
    traits: ModelTraits,
    *,
    preferred: str,
    threads: int,
    device: Literal["cpu", "cuda"],
) -> Measurement:
    began_at = time.monotonic()
    evaluator.answer(answered.case)
    seconds = time.monotonic() - began_at
    choice = choose_engine(
        loaded, evaluator, answered.case, preferred=preferred, pass_seconds=seconds, threads=threads, device=device
    )
    gradient = _gradient_seconds(loaded, answered, threads=threads, device=device) if traits.has_twin else 0.0
    return Measurement(seconds, gradient, slic_rate(threads), choice)


def _facts(model: Model, preferred: str, *, threads: int, device: Literal["cpu", "cuda"]) -> dict[str, str]:
    """All that a measurement depends on."""
    own = {"model": model.digest, "metadata": model.metadata_digest, "engine": preferred, "threads": str(threads)}
    return own | {"device": device_name(device), "cpus": str(len(os.sched_getaffinity(0)))} | package_versions()


def open_background(model: Model) -> None:
    """Read every background case once: a call only leaves out what it cannot read, and nobody would mend the file."""
    for number, case in enumerate(model.background_cases):
        for name, path in case.items():
            try:
                read_nifti(path)
            except ModelRefused as refused:
                raise ModelRefused(refused.reason, f"Background case {number}, {name}: {refused.message}") from None


def _probe(model: Model, evaluator: OnnxEngine) -> list[_Answered]:
    fixed = all(None not in modality.shape for modality in model.modalities)
    fault: Exception | None = None
    answered: list[_Answered] = []
    for edge in PROBE_EDGES[:1] if fixed else PROBE_EDGES:
        try:
            answered = [_Answered(case, evaluator.answer(case)) for case in probe_cases(model, edge)]
        except Exception as error:
            fault = error
            continue
        if all(np.isfinite(each.answer).all() for each in answered):
            return answered
    if answered:
        message = "The model answers NaN or infinity on random volumes of mean 0 and deviation 1. Mend and export it."
        raise UnsupportedByModel("ANSWER_NOT_FINITE", message)
    if fault is not None:
        describe_fault(fault)
    message = "ONNX Runtime cannot run the model on a random case of the shape that its bundle states. Correct spatial_shape."
    raise UnsupportedByModel("PROBE_FAILED", message)


def _traits(loaded: LoadedModel, answered: list[_Answered], *, threads: int, device: str) -> ModelTraits:
    model, graph = loaded.model, loaded.graph
    unsupported, parity, layers = _compare(loaded, answered, threads=threads, device=device)
    default = find_cam_layer(graph, output=model.output.score_name)
    return ModelTraits(
        unsupported_operators=unsupported,
        twin_parity=parity,
        has_relu=has_relu(graph),
        cam_layers=layers,
        default_cam_layers=model.cam_layers or tuple(layer.value for layer in default.layers),
        deep_lift_rule_missing=operators_without_deep_lift_rule(graph),
        has_max_pool=any(node.op == "MaxPool" for node in graph.nodes),
        evaluation_voxels=sum(volume.size for volume in answered[0].case.volumes),
        background_cases=len(model.background_cases),
        signature=read_signature(loaded.proto, graph),
    )


def _compare(
    loaded: LoadedModel, answered: list[_Answered], *, threads: int, device: str
) -> tuple[tuple[str, ...], float | None, tuple[str, ...]]:
    """Operators that the twin cannot read, its largest relative difference, and the layers that Grad-CAM can read."""
    from voxplain_server.engines.torch_evaluator import TorchEvaluator
    from voxplain_server.graph.twin import build_twin

    model = loaded.model
    try:
        twin = build_twin(loaded.graph, outputs=[model.output.score_name])
    except UnsupportedOperator as refused:
        return refused.ops, None, ()
    layers = _layers(loaded.graph, twin.onnx_values, {name for name, _ in twin.named_modules()})
    evaluator = TorchEvaluator(twin, model, device=device, threads=threads)
    try:
        differences = [_difference(evaluator.answer(each.case), each.answer) for each in answered]
    except Exception as error:
        describe_fault(error)
        return (), None, layers
    return (), max(differences), layers


def _gradient_seconds(loaded: LoadedModel, answered: _Answered, *, threads: int, device: str) -> float:
    """Time of one forward and backward pass as methods do it, the first one left out: it makes ready."""
    from voxplain_server.engines.torch_engine import TorchEngine
    from voxplain_server.graph.twin import build_twin

    twin = TorchEngine(
        build_twin(loaded.graph, outputs=[loaded.model.output.score_name]), loaded.model, device=device, threads=threads
    )
    try:
        score, volumes = any_score(loaded.model, answered.answer), twin.tensors(answered.case.volumes)

        def run() -> npt.NDArray[np.float64]:
            twin.forward_pass(score, volumes).gradients()
            return np.zeros(0)

        run()
        return timed(run, budget=GRADIENT_SECONDS)[1]
    except Exception as error:
        # Whoever asks for a gradient will be told; its time stays unknown.
        describe_fault(error)
        return 0.0


def _difference(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> float:
    if ours.shape != theirs.shape or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(float(np.abs(theirs).max()), 1e-12))


def _layers(graph: Graph, nodes_by_value: dict[str, str], modules: set[str]) -> tuple[str, ...]:
    """Values with spatial axes that depend on the voxels and that a module of the twin makes, in the graph's order."""
    from_voxels = dependence(graph)
    found = []
    for node in graph.nodes:
        value = node.outputs[0]
        shape = graph.shape(value)
        spatial = shape is not None and len(shape) > 2 and any(size != 1 for size in shape[2:])
        if spatial and value in from_voxels and nodes_by_value.get(value) in modules:
            found.append(value)
    return tuple(found)
