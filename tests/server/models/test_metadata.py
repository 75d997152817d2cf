"""metadata.json: what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from voxplain_server.models.metadata import AxisRule, read_metadata
from voxplain_server.models.model import Fit
from voxplain_server.models.model_refused import ModelRefused


def _document(**voxplain: Any) -> dict[str, Any]:
    return {
        "version": "0.2.0",
        "description": "Tells round from irregular.",
        "network_data_format": {
            "inputs": {
                "image": {
                    "num_channels": 2,
                    "spatial_shape": ["16*n", "*", 64],
                    "channel_def": {"0": "T1 Gd", "1": "FLAIR"},
                    "is_patch_data": True,
                }
            },
            "outputs": {"pred": {"type": "Probabilities", "format": "classes", "num_channels": 2}},
        },
        "voxplain": voxplain,
    }


def _read(folder: Path, document: Any) -> Any:
    path = folder / "metadata.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return read_metadata(path)


def _refusal(folder: Path, document: Any) -> ModelRefused:
    with pytest.raises(ModelRefused) as caught:
        _read(folder, document)
    return caught.value


def test_the_monai_keys_are_read(tmp_path: Path) -> None:
    metadata = _read(tmp_path, _document())
    assert metadata.version == "0.2.0"
    (image,), (pred,) = metadata.inputs, metadata.outputs
    assert image.spatial == (AxisRule(multiple=16), AxisRule(), AxisRule(size=64))
    assert image.channel_names == ("T1 Gd", "FLAIR")
    assert image.is_patch
    assert (pred.type, pred.format, pred.channels) == ("probabilities", "classes", 2)


def test_an_expression_that_cannot_be_solved_allows_any_size(tmp_path: Path) -> None:
    document = _document()
    document["network_data_format"]["inputs"]["image"]["spatial_shape"] = ["2**p*n", "n*32", "8*(n+1)"]
    assert _read(tmp_path, document).inputs[0].spatial == (AxisRule(), AxisRule(multiple=32), AxisRule())


def test_every_option_is_read(tmp_path: Path) -> None:
    options = _read(
        tmp_path,
        _document(
            orientation="ras",
            spacing={"mm": [1, 1, 2.5], "tolerance": 0.05},
            fit={"resample": True, "crop": True},
            normalisation="nonzero-zscore",
            channel_repeat=3,
            slice_axis=2,
            batch_is_slices=True,
            cam_layers=["relu_3"],
            grouping_modality="T1 Gd",
            decision_threshold=0.4,
            output={"kind": "classes", "activation": "softmax"},
            modalities={"image": ["A", "B"]},
            background_cases={"declaration": "synthetic", "cases": [{"A": "a.nii", "B": "b.nii.gz"}]},
        ),
    ).options
    image = options.inputs["image"]
    assert image.orientation == "RAS"
    assert (image.spacing_mm, image.spacing_tolerance) == ((1.0, 1.0, 2.5), 0.05)
    assert image.fit == Fit(resample=True, crop=True)
    assert (image.normalisation, image.channel_repeat) == ("nonzero-zscore", 3)
    assert (image.slice_axis, image.batch_is_slices) == (2, True)
    assert image.modalities == ("a", "b")
    assert (options.cam_layers, options.grouping_modality, options.decision_threshold) == (("relu_3",), "t1-gd", 0.4)
    assert (options.output_kind, options.output_activation) == ("classes", "softmax")
    assert options.background_cases == ({"a": "a.nii", "b": "b.nii.gz"},)


def test_an_option_may_differ_by_input(tmp_path: Path) -> None:
    document = _document(orientation={"image": "RAS", "other": "LPS"}, fit={"image": {"crop": True}}, slice_axis={"other": 0})
    document["network_data_format"]["inputs"]["other"] = {"num_channels": 1}
    inputs = _read(tmp_path, document).options.inputs
    assert (inputs["image"].orientation, inputs["other"].orientation) == ("RAS", "LPS")
    assert (inputs["image"].fit, inputs["other"].fit) == (Fit(crop=True), Fit())
    assert (inputs["image"].slice_axis, inputs["other"].slice_axis) == (None, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"orientation": "RLS"},
        {"orientation": "RASA"},
        {"orientation": 3},
        {"spacing": {"mm": [1, 1, 0]}},
        {"spacing": {"mm": [1, 1, "x"]}},
        {"spacing": {"tolerance": 0.1}},
        {"spacing": {"mm": [1, 1, 1], "tolerance": 2}},
        {"spacing": [1, 1, 1]},
        {"fit": {"resample": 1}},
        {"fit": {"rotate": True}},
        {"normalisation": "minmax"},
        {"channel_repeat": 0},
        {"channel_repeat": True},
        {"slice_axis": 3},
        {"batch_is_slices": "yes"},
        {"cam_layers": "relu"},
        {"cam_layers": [1]},
        {"decision_threshold": 1},
        {"output": {"kind": "boxes"}},
        {"output": {"name": "pred"}},
        {"modalities": {"image": [""]}},
        {"background_cases": {"declaration": "synthetic", "cases": [{}]}},
        {"background_cases": {"declaration": "trust me", "cases": [{"t1": "a.nii"}]}},
    ],
)
def test_an_option_that_cannot_be_is_refused_with_its_key(tmp_path: Path, options: dict[str, Any]) -> None:
    refusal = _refusal(tmp_path, _document(**options))
    assert refusal.reason == "METADATA_INVALID"
    assert f"voxplain.{next(iter(options))}" in refusal.message


def test_an_unknown_option_is_refused_without_repeating_it(tmp_path: Path) -> None:
    refusal = _refusal(tmp_path, _document(orientatoin="RAS"))
    assert refusal.reason == "METADATA_INVALID"
    assert "orientatoin" not in refusal.message
    assert "orientation" in refusal.message


def test_background_cases_without_a_declaration_are_refused(tmp_path: Path) -> None:
    assert _refusal(tmp_path, _document(background_cases={"cases": [{"t1": "a.nii"}]})).reason == "BACKGROUND_UNDECLARED"


def test_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused) as caught:
        read_metadata(tmp_path / "metadata.json")
    assert caught.value.reason == "METADATA_MISSING"
    assert str(tmp_path) not in caught.value.message


def test_a_file_above_one_mebibyte_is_refused(tmp_path: Path) -> None:
    assert _refusal(tmp_path, _document() | {"filler": "x" * (1 << 20)}).reason == "METADATA_TOO_LARGE"


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_without_end_is_refused(tmp_path: Path, opening: str) -> None:
    assert _refusal(tmp_path, opening * 100_000).reason == "METADATA_TOO_LARGE"


def test_brackets_inside_text_are_no_nesting(tmp_path: Path) -> None:
    assert _read(tmp_path, _document() | {"comment": '[{\\"' * 100}).version == "0.2.0"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"a": NaN}', '{"a": 1, "a": 2}', '{"network_data_format": []}', '{"network_data_format": {}}', "\x00"],
)
def test_what_is_not_such_json_is_refused(tmp_path: Path, text: str) -> None:
    assert _refusal(tmp_path, text).reason == "METADATA_INVALID"


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "metadata.json").write_bytes(b'{"version": "\xff"}')
    with pytest.raises(ModelRefused, match="UTF-8"):
        read_metadata(tmp_path / "metadata.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_channels", 0),
        ("num_channels", "four"),
        ("spatial_shape", [0, 1, 2]),
        ("spatial_shape", [-1, 1, 2]),
        ("spatial_shape", ["__import__('os')", 1, 2]),
        ("spatial_shape", [1, 2, 3, 4]),
        ("channel_def", {"1": "t1"}),
        ("channel_def", {"0": 7}),
        ("channel_def", {"0": "line\nbreak"}),
        ("is_patch_data", "no"),
    ],
)
def test_a_monai_key_that_cannot_be_is_refused_with_its_place(tmp_path: Path, key: str, value: Any) -> None:
    document = _document()
    document["network_data_format"]["inputs"]["image"][key] = value
    refusal = _refusal(tmp_path, document)
    assert refusal.reason == "METADATA_INVALID"
    assert f"network_data_format.inputs[0].{key}" in refusal.message
