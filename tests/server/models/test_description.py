"""A model travels to the front as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from voxplain_server.models.description import model_from_json, model_to_json
from voxplain_server.models.traits import ModelTraits

from tests import bundles
from tests.server.models.editing import load

TRAITS = ModelTraits(
    unsupported_operators=("GridSample",),
    twin_parity=3.2e-7,
    has_relu=True,
    cam_layers=("a", "b"),
    default_cam_layers=("b",),
    evaluation_seconds=0.25,
    evaluation_voxels=2**15,
    background_cases=2,
)


@pytest.mark.parametrize(
    "maker", [bundles.early_fusion_classes, bundles.late_fusion, bundles.slices_2_5d, bundles.scalar, bundles.segmentation]
)
def test_what_is_described_is_restored(tmp_path: Path, maker: object) -> None:
    model = load(maker(tmp_path)).model  # type: ignore[operator]
    model = replace(model, background_cases=({"t1": tmp_path / "a.nii"},), description="zwei Wörter")
    assert model_from_json(model_to_json(model, TRAITS)) == (model, TRAITS)
    assert model_from_json(model_to_json(model, ModelTraits())) == (model, ModelTraits())


def test_options_survive(tmp_path: Path) -> None:
    stated = {"spacing": {"mm": [1, 2, 3]}, "orientation": "RAS", "fit": {"crop": True}, "decision_threshold": 0.4}
    model = load(bundles.early_fusion_classes(tmp_path, voxplain=stated)).model
    assert model_from_json(model_to_json(model, TRAITS))[0] == model


def test_something_else_is_refused(tmp_path: Path) -> None:
    whole = json.loads(model_to_json(load(bundles.scalar(tmp_path)).model, TRAITS))
    models = (None, whole["model"] | {"unknown": 1}, whole["model"] | {"name": 1})
    for change in ({"traits": [1]}, *({"model": model} for model in models)):
        with pytest.raises(ValueError, match="description"):
            model_from_json(json.dumps(whole | change).encode())
    for text in (b"", b"[]", b"nonsense", b"{}"):
        with pytest.raises(ValueError):
            model_from_json(text)
