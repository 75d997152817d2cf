"""One models folder and its catalogue for all tests of the workers: checking a bundle costs seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from onnx import helper
from voxplain_server.workers.catalog import Catalog
from voxplain_server.workers.checking import check_models
from voxplain_server.workers.pool_settings import PoolSettings

from tests import bundles


@dataclass(frozen=True, slots=True)
class Ward:
    """The models that tests explain.

    Attributes:
        folder: the models folder.
        catalog: what checking it gave.
        bundles: by name.
    """

    folder: Path
    catalog: Catalog
    bundles: Mapping[str, bundles.TinyBundle]


@pytest.fixture(scope="session")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    """Good bundles, one cut in half, and one that is no ONNX at all. Whole passes, whatever this machine measures.

    tiny-fixed has no finite answer for a case of nothing but zeros.
    """
    folder = tmp_path_factory.mktemp("models")
    good = [
        bundles.early_fusion_classes(folder),
        bundles.fixed_batch(folder),
        bundles.late_fusion(folder),
        bundles.segmentation(folder),
        bundles.slices_2_5d(folder),
    ]
    _take_logarithm(good[1].folder / "model.onnx")
    corrupt = bundles.two_dimensional(folder, name="corrupt")
    whole = (corrupt.folder / "model.onnx").read_bytes()
    (corrupt.folder / "model.onnx").write_bytes(whole[: len(whole) // 2])
    nonsense = bundles.two_dimensional(folder, name="nonsense")
    (nonsense.folder / "model.onnx").write_bytes(b"\xff" * 4096)
    catalog = asyncio.run(check_models(folder, settings=PoolSettings(engine="onnxruntime")))
    return Ward(folder, catalog, {each.name: each for each in good})


def _take_logarithm(path: Path) -> None:
    """Add the logarithm of the brightest voxel's size to the model's answer."""
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
