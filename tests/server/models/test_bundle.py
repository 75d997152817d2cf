"""Finding bundles."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from voxplain_server.models.bundle import default_version, find_bundles, version_key
from voxplain_server.models.bundle_place import BundlePlace
from voxplain_server.models.model_refused import ModelRefused


def _plain(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.onnx").touch()
    (folder / "metadata.json").write_text('{"version": "0.3.1"}')
    return folder


def _monai(folder: Path, *, version: str = "0.3.1") -> Path:
    (folder / "models").mkdir(parents=True)
    (folder / "configs").mkdir()
    (folder / "models" / "net.onnx").touch()
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": version}))
    return folder


def _names(folder: Path) -> list[tuple[str, str]]:
    return [(place.name, place.version) for place in find_bundles(folder)]


def test_versions_are_ordered_as_numbers(tmp_path: Path) -> None:
    for version in ("2", "10", "9"):
        _plain(tmp_path / "glioma" / version)
    assert _names(tmp_path) == [("glioma", "10"), ("glioma", "9"), ("glioma", "2")]
    chosen = default_version(find_bundles(tmp_path), "glioma")
    assert chosen is not None
    assert chosen.version == "10"
    assert default_version(find_bundles(tmp_path), "knee") is None


@pytest.mark.parametrize(
    ("higher", "lower"), [("10", "9"), ("1.10", "1.9"), ("1.0.1", "1.0"), ("2", "1.9.9"), ("1", "beta"), ("v3", "v2")]
)
def test_a_version_is_above_another(higher: str, lower: str) -> None:
    assert version_key(higher) > version_key(lower)


def test_a_models_folder_a_model_and_a_version_may_be_given(tmp_path: Path) -> None:
    _plain(tmp_path / "glioma" / "1")
    _plain(tmp_path / "knee" / "2")
    assert _names(tmp_path) == [("glioma", "1"), ("knee", "2")]
    assert _names(tmp_path / "glioma") == [("glioma", "1")]
    assert _names(tmp_path / "glioma" / "1") == [("glioma", "1")]


def test_both_layouts_are_found(tmp_path: Path) -> None:
    _plain(tmp_path / "glioma" / "1")
    _monai(tmp_path / "glioma" / "2")
    plain, monai = reversed(find_bundles(tmp_path))
    assert plain.onnx_path().name == "model.onnx"
    assert monai.onnx_path().name == "net.onnx"
    assert monai.metadata_path() == (tmp_path / "glioma" / "2" / "configs" / "metadata.json").resolve()
    assert _names(tmp_path / "glioma") == [("glioma", "2"), ("glioma", "1")]


def test_a_monai_bundle_without_a_version_folder_states_its_version(tmp_path: Path) -> None:
    _monai(tmp_path / "spleen", version="0.5.9")
    _monai(tmp_path / "brats", version="0.4.0")
    assert _names(tmp_path) == [("brats", "0.4.0"), ("spleen", "0.5.9")]
    assert _names(tmp_path / "spleen") == [("spleen", "0.5.9")]


def test_a_model_named_by_a_number_is_not_a_version(tmp_path: Path) -> None:
    _plain(tmp_path / "2023" / "1")
    _plain(tmp_path / "glioma" / "1")
    assert _names(tmp_path) == [("2023", "1"), ("glioma", "1")]


def test_other_folders_are_passed_over(tmp_path: Path) -> None:
    _plain(tmp_path / "glioma" / "1")
    (tmp_path / "glioma" / "notes").mkdir()
    (tmp_path / ".cache" / "1").mkdir(parents=True)
    (tmp_path / "readme.txt").touch()
    assert _names(tmp_path) == [("glioma", "1")]


def test_an_empty_version_is_listed_so_that_loading_can_say_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "glioma" / "1").mkdir(parents=True)
    (place,) = find_bundles(tmp_path)
    with pytest.raises(ModelRefused) as caught:
        place.onnx_path()
    assert caught.value.reason == "ONNX_MISSING"


def test_no_bundle_is_found_where_there_is_none(tmp_path: Path) -> None:
    assert find_bundles(tmp_path) == []
    assert find_bundles(tmp_path / "nowhere") == []


def test_several_onnx_files_are_ambiguous_unless_one_is_named_model(tmp_path: Path) -> None:
    folder = _monai(tmp_path / "spleen" / "1")
    (folder / "models" / "other.onnx").touch()
    place = BundlePlace("spleen", "1", folder)
    with pytest.raises(ModelRefused) as caught:
        place.onnx_path()
    assert caught.value.reason == "ONNX_AMBIGUOUS"
    (folder / "models" / "model.onnx").touch()
    assert place.onnx_path().name == "model.onnx"


@pytest.mark.parametrize(("name", "version"), [("two words", "1"), ("a/b", "1"), ("a", "x" * 200), ("a", "")])
def test_a_name_that_cannot_be_asked_for_is_refused(name: str, version: str) -> None:
    with pytest.raises(ModelRefused) as caught:
        BundlePlace(name, version, Path()).check_names()
    assert caught.value.reason == "MODEL_NAME"


def test_finding_and_checking_import_nothing_heavy() -> None:
    modules = "bundle metadata description header_check targeting cautions case_building"
    code = "\n".join(f"import voxplain_server.models.{name}" for name in modules.split()) + (
        "\nimport sys\nheavy = {'torch', 'onnx', 'onnxruntime', 'captum', 'scipy', 'skimage'} & set(sys.modules)\n"
        "sys.exit(' '.join(sorted(heavy)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
