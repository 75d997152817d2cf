"""Tiny models, and their cases as raw files that every language can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper
from voxplain.v1 import tensor_pb2
from voxplain.wire import data_type_of

from tests import bundles
from tests.benchmarks import upload, vgg_like

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 2, 0, -8], [0, 0, 3, -12], [0, 0, 0, 1]])


@dataclass(frozen=True, slots=True)
class Cases:
    """Bundles and cases on disk.

    Attributes:
        models: the models folder.
        volumes: by name of the case: what a driver is told of each volume.
    """

    models: Path
    volumes: Mapping[str, list[dict[str, Any]]]


def write_cases(folder: Path) -> Cases:
    """Write all bundles and the raw voxels of one case for each."""
    models = folder / "models"
    two = bundles.early_fusion_classes(models, modalities=2)
    branches = bundles.late_fusion(models)
    fails = bundles.fixed_batch(models, name="log-of-brightest")
    _take_logarithm(fails.folder / "model.onnx")
    upload.write_bundle(models)
    held = {bundle.name: _write(folder, bundle.name, bundle.volumes()) for bundle in (two, branches, fails)}
    labels = (np.indices((12, 14, 10)).sum(axis=0) // 6 + 1).astype(np.int32)
    shared = _volume(folder / "labels.raw", labels, role="TENSOR_ROLE_LABELS", modality="")
    held[f"{two.name}, labels"] = [*held[two.name], shared]
    draws = np.random.default_rng(0)
    whole = {name: draws.standard_normal(upload.SHAPE, dtype=np.float32) for name in vgg_like.MODALITIES}
    held["mean"] = _write(folder, "mean", whole)
    return Cases(models, held)


def _write(folder: Path, model: str, volumes: Mapping[str, npt.NDArray[Any]]) -> list[dict[str, Any]]:
    return [_volume(folder / f"{model}-{name}.raw", voxels, modality=name) for name, voxels in volumes.items()]


def _volume(path: Path, voxels: npt.NDArray[Any], *, modality: str, role: str = "TENSOR_ROLE_VOLUME") -> dict[str, Any]:
    voxels.tofile(path)
    return {
        "role": role,
        "modality": modality,
        "data_type": tensor_pb2.DataType.Name(data_type_of(voxels.dtype)),
        "shape": list(voxels.shape),
        "affine": AFFINE.ravel().tolist(),
        "file": str(path),
    }


def _take_logarithm(path: Path) -> None:
    """Add the logarithm of the brightest voxel's size: no finite answer for a case of nothing but zeros."""
    model = onnx.load(path)
    read, answer = model.graph.input[0].name, model.graph.output[0].name
    last = next(node for node in model.graph.node if answer in node.output)
    last.output[0] = "linear"
    nodes = [
        helper.make_node("Abs", [read], ["sizes"]),
        helper.make_node("ReduceMax", ["sizes"], ["brightest"], keepdims=0),
        helper.make_node("Log", ["brightest"], ["logarithm"]),
        helper.make_node("Add", ["linear", "logarithm"], [answer]),
    ]
    model.graph.node.extend(nodes)
    onnx.save(model, path)
