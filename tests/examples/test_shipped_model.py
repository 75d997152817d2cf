"""The shipped bundle and cases: what is claimed of them holds for the files themselves."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import onnx
import onnxruntime
import pytest

from examples.glioma_demo.bundle import BUNDLE, INPUT_NAME, OUTPUT_NAME, describe_model
from examples.glioma_demo.case import make_case, swap_shape
from examples.glioma_demo.case_files import CASES, read_tumours, read_volumes
from examples.glioma_demo.evaluate import open_model, predict_logits
from examples.glioma_demo.grid import DEMO_GRID
from examples.glioma_demo.synthesis import MODALITIES

CASE_FOLDERS = sorted(CASES.iterdir())
MOST_BYTES = 12 * 1024 * 1024


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return open_model()


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((BUNDLE / "metadata.json").read_text(encoding="utf-8"))
    return content


def read_facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    return facts


def test_the_cases_hold_both_classes_and_both_kinds_of_flair_and_are_declared_synthetic() -> None:
    facts = [read_facts(folder) for folder in CASE_FOLDERS]
    assert len(facts) >= 3
    assert {(fact["label"], fact["flair_agrees"]) for fact in facts} == {(0, True), (0, False), (1, True), (1, False)}
    assert {fact["declared"] for fact in facts} == {"synthetic"}


@pytest.mark.parametrize("folder", CASE_FOLDERS, ids=lambda folder: folder.name)
def test_a_shipped_case_is_what_its_seed_makes(folder: Path) -> None:
    facts = read_facts(folder)
    case = make_case(facts["seed"])
    assert dict(case.shapes) == facts["shapes"]
    for modality, voxels in read_volumes(folder).items():
        # Another CPU or numerical library may round a voxel at a tie the other way.
        np.testing.assert_allclose(voxels, case.volumes[modality], atol=1)
    for modality, mask in read_tumours(folder).items():
        assert np.mean(mask != case.tumours[modality]) < 1e-4
    for name in [*facts["volumes"].values(), *facts["tumours"].values()]:
        header = nib.nifti1.Nifti1Image.from_filename(folder / name)
        np.testing.assert_array_equal(header.affine, DEMO_GRID.affine)
        assert nib.orientations.aff2axcodes(header.affine) == ("R", "A", "S")  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("folder", CASE_FOLDERS, ids=lambda folder: folder.name)
def test_the_model_answers_with_the_label_and_follows_t1c_but_not_flair(
    folder: Path, session: onnxruntime.InferenceSession
) -> None:
    facts = read_facts(folder)
    case = make_case(facts["seed"])
    assert int(predict_logits(session, case).argmax()) == facts["label"]
    assert int(predict_logits(session, swap_shape(case, "t1c")).argmax()) == 1 - facts["label"]
    assert int(predict_logits(session, swap_shape(case, "flair")).argmax()) == facts["label"]


def test_the_model_is_one_small_file_without_external_data_and_ends_in_logits() -> None:
    model = onnx.load(BUNDLE / "model.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    assert (BUNDLE / "model.onnx").stat().st_size < 4 * 1024 * 1024
    content = (BUNDLE / "model.onnx").read_bytes()
    assert not any(trace in content for trace in (b"site-packages", b"stack_trace", b'File "'))
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"Softmax", "Sigmoid", "LogSoftmax"}
    assert {"Conv", "Relu"} <= operators


def test_the_metadata_says_what_the_onnx_file_takes_and_gives(
    metadata: dict[str, Any], session: onnxruntime.InferenceSession
) -> None:
    (given,), (answer,) = session.get_inputs(), session.get_outputs()
    stated = metadata["network_data_format"]["inputs"][INPUT_NAME]
    assert given.name == INPUT_NAME
    assert isinstance(given.shape[0], str)
    assert given.shape[1:] == [stated["num_channels"], *stated["spatial_shape"]]
    assert given.type == "tensor(float)"
    assert list(stated["channel_def"].values()) == list(MODALITIES)
    (predicted,) = metadata["network_data_format"]["outputs"].values()
    assert answer.name == OUTPUT_NAME
    assert answer.shape[1:] == [predicted["num_channels"]]
    assert predicted["channel_def"] == {"0": "round", "1": "irregular"}


def test_the_metadata_is_what_the_script_writes(metadata: dict[str, Any]) -> None:
    written = json.loads(json.dumps(describe_model(metadata["eval_metrics"])))
    versions = ("monai_version", "pytorch_version", "numpy_version")
    assert {key: value for key, value in written.items() if key not in versions} == {
        key: value for key, value in metadata.items() if key not in versions
    }


def test_the_measured_figures_in_the_metadata_keep_their_bounds(metadata: dict[str, Any]) -> None:
    figures = metadata["eval_metrics"]
    assert figures["cases"] >= 500
    assert figures["accuracy"] >= 0.95
    assert figures["flips_t1c_swapped"] >= 0.90
    assert figures["flips_flair_swapped"] <= 0.10


def test_every_background_case_lies_on_the_model_grid_and_inside_the_bundle(metadata: dict[str, Any]) -> None:
    background = metadata["voxplain"]["background_cases"]
    assert background["declaration"] == "synthetic"
    assert len(background["cases"]) >= 2
    for case in background["cases"]:
        assert list(case) == list(MODALITIES)
        for name in case.values():
            path = (BUNDLE / name).resolve()
            assert path.is_relative_to(BUNDLE.resolve())
            image = nib.nifti1.Nifti1Image.from_filename(path)
            assert image.shape == DEMO_GRID.shape
            np.testing.assert_array_equal(image.affine, DEMO_GRID.affine)


def test_all_that_is_shipped_stays_small() -> None:
    shipped = [*BUNDLE.rglob("*"), *CASES.rglob("*")]
    assert sum(path.stat().st_size for path in shipped if path.is_file()) < MOST_BYTES
