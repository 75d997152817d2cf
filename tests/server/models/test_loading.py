"""A bundle becomes a Model, or is refused with what to change."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto
from voxplain_server.models.bundle_place import BundlePlace
from voxplain_server.models.loading import load_model
from voxplain_server.models.model import Activation, Model, OutputKind
from voxplain_server.models.model_refused import ModelRefused

from tests import bundles
from tests.server.models.editing import GraphNode, edit_metadata, load, place_of, state, write_bundle

POOL: GraphNode = ("GlobalAveragePool", ["image"], "pooled", {})
FLAT: GraphNode = ("Flatten", ["pooled"], "flat", {"axis": 1})
VOLUME = ("batch", 1, 8, 8, 8)


def _refusal(place: BundlePlace) -> str:
    with pytest.raises(ModelRefused) as caught:
        load_model(place)
    assert str(place.folder) not in caught.value.message
    assert caught.value.message.endswith(".")
    return caught.value.reason


def _odd(folder: Path, outputs: Any, nodes: Any, **stated: Any) -> Model:
    inputs = stated.pop("inputs", {"image": VOLUME})
    return load_model(write_bundle(folder, inputs=inputs, outputs=outputs, nodes=nodes, **stated)).model


def _odd_refusal(folder: Path, outputs: Any, nodes: Any, **stated: Any) -> str:
    inputs = stated.pop("inputs", {"image": VOLUME})
    return _refusal(write_bundle(folder, inputs=inputs, outputs=outputs, nodes=nodes, **stated))


def test_early_fusion_makes_modalities_the_channels_of_one_input(tmp_path: Path) -> None:
    bundle = bundles.early_fusion_classes(tmp_path)
    model = load(bundle).model
    assert model.modality_names == ("t1", "t1c", "t2", "flair")
    assert [modality.channel for modality in model.modalities] == [0, 1, 2, 3]
    assert {modality.shape for modality in model.modalities} == {(12, 14, 10)}
    assert not model.late_fusion
    assert model.batched
    assert (model.output.kind, model.output.activation) == (OutputKind.CLASSES, Activation.NONE)
    assert model.output.classes == ("round", "irregular")
    assert model.digest == hashlib.sha256(model.onnx_path.read_bytes()).hexdigest()
    assert model.metadata_digest == hashlib.sha256((bundle.folder / "metadata.json").read_bytes()).hexdigest()
    assert model.cautions == ("ORIENTATION_UNCHECKED", "SPACING_UNCHECKED")


def test_scores_are_read_in_front_of_a_final_softmax(tmp_path: Path) -> None:
    loaded = load(bundles.early_fusion_classes(tmp_path, softmax=True))
    output = loaded.model.output
    assert output.activation is Activation.SOFTMAX
    assert output.score_name != output.name
    producer = loaded.graph.producer(output.score_name)
    assert producer is not None
    assert producer.op == "Gemm"


def test_late_fusion_gives_each_input_its_modality_and_shape(tmp_path: Path) -> None:
    bundle = bundles.late_fusion(tmp_path)
    model = load(bundle).model
    assert model.late_fusion
    assert {modality.name: modality.shape for modality in model.modalities} == dict(bundle.shapes)
    assert [spec.modalities for spec in model.inputs] == [("axial",), ("sagittal",)]


def test_a_fixed_batch_axis_is_served_one_by_one(tmp_path: Path) -> None:
    assert not load(bundles.fixed_batch(tmp_path)).model.batched


def test_planes_are_two_dimensional(tmp_path: Path) -> None:
    assert [modality.shape for modality in load(bundles.two_dimensional(tmp_path)).model.modalities] == [(20, 16)] * 2


@pytest.mark.parametrize("batch_is_slices", [False, True])
def test_slices_are_an_axis_of_the_volume_again(tmp_path: Path, batch_is_slices: bool) -> None:
    model = load(bundles.slices_2_5d(tmp_path, batch_is_slices=batch_is_slices)).model
    assert [modality.shape for modality in model.modalities] == [(None, 16, 16), (16, None, 16), (16, 16, None)]
    assert [(spec.slice_axis, spec.repeat, spec.batch_is_slices) for spec in model.inputs] == [
        (axis, 3, batch_is_slices) for axis in range(3)
    ]
    assert not model.batched


def test_one_sigmoid_output_has_two_classes(tmp_path: Path) -> None:
    output = load(bundles.sigmoid(tmp_path, threshold=0.3)).model.output
    assert (output.kind, output.activation, output.classes) == (OutputKind.SIGMOID, Activation.SIGMOID, ("intact", "tear"))
    assert output.decision_threshold == 0.3


def test_one_logit_without_its_sigmoid_is_still_two_classes(tmp_path: Path) -> None:
    output = load(bundles.sigmoid(tmp_path, with_sigmoid=False)).model.output
    assert (output.kind, output.activation) == (OutputKind.SIGMOID, Activation.NONE)


def test_a_scalar_has_no_class(tmp_path: Path) -> None:
    output = load(bundles.scalar(tmp_path)).model.output
    assert (output.kind, output.classes) == (OutputKind.SCALAR, ())


def test_a_segmentation_is_told_by_its_rank(tmp_path: Path) -> None:
    output = load(bundles.segmentation(tmp_path, softmax=True)).model.output
    assert (output.kind, output.activation) == (OutputKind.SEGMENTATION, Activation.SOFTMAX)
    assert output.classes == ("background", "tumour")


def test_the_monai_layout_loads(tmp_path: Path) -> None:
    bundle = bundles.early_fusion_classes(tmp_path / "plain")
    folder = tmp_path / "monai"
    (folder / "models").mkdir(parents=True)
    (folder / "configs").mkdir()
    shutil.copy(bundle.folder / "model.onnx", folder / "models" / "network.onnx")
    shutil.copy(bundle.folder / "metadata.json", folder / "configs" / "metadata.json")
    model = load_model(BundlePlace("spleen", "0.1", folder)).model
    assert (model.name, model.version, model.onnx_path.name) == ("spleen", "0.1", "network.onnx")


def test_one_input_and_one_output_may_be_called_otherwise_in_the_metadata(tmp_path: Path) -> None:
    def rename(metadata: dict[str, Any]) -> None:
        network = metadata["network_data_format"]
        network["inputs"] = {"volume": network["inputs"]["image"]}
        network["outputs"] = {"answer": network["outputs"]["pred"]}

    model = load(edit_metadata(bundles.early_fusion_classes(tmp_path), rename)).model
    assert (model.inputs[0].name, model.output.name) == ("image", "pred")


def test_options_of_the_bundle_reach_the_model(tmp_path: Path) -> None:
    bundle = bundles.early_fusion_classes(
        tmp_path,
        voxplain={
            "orientation": "RAS",
            "spacing": {"mm": [2, 2, 2]},
            "normalisation": "nonzero-zscore",
            "fit": {"crop": True, "pad": True},
            "grouping_modality": "t1c",
            "cam_layers": ["relu_3"],
            "output": {"activation": "softmax"},
        },
    )
    model = load(bundle).model
    modality = model.modalities[2]
    assert (modality.orientation, modality.spacing_mm, modality.normalisation) == ("RAS", (2.0, 2.0, 2.0), "nonzero-zscore")
    assert modality.fit.crop
    assert model.output.activation is Activation.SOFTMAX
    assert model.output.score_name == model.output.name
    assert (model.grouping_modality, model.cam_layers, model.cautions) == ("t1c", ("relu_3",), ())


def test_a_free_axis_keeps_the_multiple_that_the_metadata_states(tmp_path: Path) -> None:
    bundle = bundles.early_fusion_classes(tmp_path, dynamic_shape=True)

    def shape(metadata: dict[str, Any]) -> None:
        metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = ["16*n", 24, "*"]

    modality = load(edit_metadata(bundle, shape)).model.modalities[0]
    assert (modality.shape, modality.multiples) == ((None, 24, None), (16, 1, 1))


def test_probabilities_without_a_visible_activation_stay_raw(tmp_path: Path) -> None:
    bundle = bundles.early_fusion_classes(tmp_path)
    edit_metadata(bundle, lambda metadata: metadata["network_data_format"]["outputs"]["pred"].update(type="probabilities"))
    model = load(bundle).model
    assert model.output.activation is Activation.UNKNOWN
    assert "ACTIVATION_UNKNOWN" in model.cautions


def test_a_softmax_over_another_axis_is_part_of_the_answer(tmp_path: Path) -> None:
    nodes = [("Softmax", ["image"], "pred", {"axis": 2})]
    model = _odd(tmp_path, {"pred": VOLUME}, nodes)
    assert (model.output.activation, model.output.score_name) == (Activation.UNKNOWN, "pred")


def test_class_names_have_a_default(tmp_path: Path) -> None:
    nodes = [POOL, FLAT, ("Concat", ["flat", "flat", "flat"], "pred", {"axis": 1})]
    assert _odd(tmp_path, {"pred": ("batch", 3)}, nodes).output.classes == ("class-0", "class-1", "class-2")


def test_one_class_name_names_its_opposite(tmp_path: Path) -> None:
    nodes = [POOL, FLAT, ("Sigmoid", ["flat"], "pred", {})]
    model = _odd(tmp_path, {"pred": ("batch", 1)}, nodes, output_metadata={"channel_def": {"0": "tear"}})
    assert model.output.classes == ("not tear", "tear")


def test_a_squeezed_output_has_no_batch_axis(tmp_path: Path) -> None:
    nodes = [POOL, FLAT, ("Concat", ["flat", "flat"], "both", {"axis": 1}), ("Squeeze", ["both", "zero"], "pred", {})]
    model = _odd(tmp_path, {"pred": (2,)}, nodes, inputs={"image": (1, 1, 8, 8, 8)})
    assert (model.output.has_batch_axis, model.output.kind, model.batched) == (False, OutputKind.CLASSES, False)


def test_pooled_axes_that_stayed_are_no_segmentation(tmp_path: Path) -> None:
    nodes = [POOL, ("Concat", ["pooled", "pooled"], "pred", {"axis": 1})]
    assert _odd(tmp_path, {"pred": ("batch", 2, 1, 1, 1)}, nodes).output.kind is OutputKind.CLASSES


def test_a_lone_number_without_classes_is_a_scalar(tmp_path: Path) -> None:
    assert _odd(tmp_path, {"pred": ("batch", 1)}, [POOL, ("Flatten", ["pooled"], "pred", {})]).output.kind is OutputKind.SCALAR


def test_a_scalar_behind_a_sigmoid_is_explained_as_it_is(tmp_path: Path) -> None:
    nodes = [POOL, FLAT, ("Sigmoid", ["flat"], "pred", {})]
    output = _odd(tmp_path, {"pred": ("batch", 1)}, nodes, voxplain={"output": {"kind": "scalar"}}).output
    assert (output.kind, output.score_name) == (OutputKind.SCALAR, "pred")


def test_inputs_that_all_call_their_channel_image_are_told_apart_by_name(tmp_path: Path) -> None:
    nodes = [
        ("GlobalAveragePool", ["Axial"], "a", {}),
        ("GlobalAveragePool", ["Sagittal"], "b", {}),
        ("Concat", ["a", "b"], "both", {"axis": 1}),
        ("Flatten", ["both"], "pred", {"axis": 1}),
    ]
    model = _odd(
        tmp_path,
        {"pred": ("batch", 2)},
        nodes,
        inputs={"Axial": VOLUME, "Sagittal": VOLUME},
        input_metadata={"channel_def": {"0": "image"}},
    )
    assert model.modality_names == ("axial", "sagittal")


def test_the_digest_covers_weights_in_files_of_their_own(tmp_path: Path) -> None:
    bundle = bundles.early_fusion_classes(tmp_path)
    whole = load(bundle).model.digest
    proto = onnx.load(bundle.folder / "model.onnx")
    onnx.save(proto, bundle.folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    apart = load(bundle).model.digest
    weights = bundle.folder / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    assert len({whole, apart, load(bundle).model.digest}) == 3


# Refusals.


def _break(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], BundlePlace]:
    return lambda folder: place_of(edit_metadata(bundles.early_fusion_classes(folder), change))


def _set(part: str, **values: Any) -> Callable[[Path], BundlePlace]:
    key = {"inputs": "image", "outputs": "pred"}[part]
    return _break(lambda metadata: metadata["network_data_format"][part][key].update(values))


def _option(**options: Any) -> Callable[[Path], BundlePlace]:
    return lambda folder: place_of(state(bundles.early_fusion_classes(folder), **options))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_set("inputs", num_channels=3), "CHANNELS_MISMATCH"),
        (_set("inputs", channel_def={"0": "t1"}), "CHANNELS_MISMATCH"),
        (_set("inputs", channel_def={}), "CHANNELS_MISMATCH"),
        (_set("inputs", channel_def={"0": "a", "1": "b", "2": "a", "3": "d"}), "MODALITY_NAMES"),
        (_set("inputs", channel_def={"0": "a", "1": "b", "2": "c", "3": "***"}), "MODALITY_NAMES"),
        (_set("inputs", spatial_shape=[12, 14, 11]), "SHAPE_MISMATCH"),
        (_set("inputs", spatial_shape=["16*n", 14, 10]), "SHAPE_MISMATCH"),
        (_set("inputs", spatial_shape=[12, 14]), "SHAPE_MISMATCH"),
        (_set("outputs", num_channels=3), "CHANNELS_MISMATCH"),
        (_set("outputs", channel_def={"0": "round"}), "CHANNELS_MISMATCH"),
        (_set("outputs", channel_def={"0": "round", "1": "round"}), "CHANNELS_MISMATCH"),
        (_option(orientation="RA"), "ORIENTATION_RANK"),
        (_option(spacing={"mm": [1, 1]}), "SPACING_RANK"),
        (_option(fit={"resample": True}), "FIT_IMPOSSIBLE"),
        (_option(channel_repeat=3), "CHANNELS_MISMATCH"),
        (_option(slice_axis=0, batch_is_slices=True), "INPUT_RANK"),
        (_option(batch_is_slices=True), "SLICES_WITHOUT_AXIS"),
        (_option(cam_layers=["nowhere"]), "CAM_LAYER_UNKNOWN"),
        (_option(grouping_modality="pet"), "MODALITY_NAMES"),
        (_option(output={"kind": "scalar"}), "OUTPUT_SHAPE"),
        (_option(output={"kind": "segmentation"}), "OUTPUT_SHAPE"),
        (_option(background_cases={"declaration": "synthetic", "cases": [{"t1": "a.nii"}]}), "BACKGROUND_INCOMPLETE"),
    ],
)
def test_metadata_that_contradicts_the_graph_is_refused(
    tmp_path: Path, make: Callable[[Path], BundlePlace], reason: str
) -> None:
    assert _refusal(make(tmp_path)) == reason


@pytest.mark.parametrize("path", ["missing.nii", "/etc/hostname", "../../secret.nii", "a\\b.nii", "model.onnx", "link.nii"])
def test_background_files_outside_the_bundle_are_refused(tmp_path: Path, path: str) -> None:
    bundle = bundles.early_fusion_classes(tmp_path / "models")
    (tmp_path / "models" / "secret.nii").touch()
    (bundle.folder / "link.nii").symlink_to(tmp_path / "models" / "secret.nii")
    case = dict.fromkeys(bundle.modalities, path)
    state(bundle, background_cases={"declaration": "synthetic", "cases": [case]})
    assert _refusal(place_of(bundle)) == "BACKGROUND_MISSING"


def test_an_activation_other_than_the_graphs_is_refused(tmp_path: Path) -> None:
    bundle = state(bundles.early_fusion_classes(tmp_path, softmax=True), output={"activation": "sigmoid"})
    assert _refusal(place_of(bundle)) == "OUTPUT_ACTIVATION"


def test_no_metadata_is_refused(tmp_path: Path) -> None:
    bundle = bundles.early_fusion_classes(tmp_path)
    (bundle.folder / "metadata.json").unlink()
    assert _refusal(place_of(bundle)) == "METADATA_MISSING"


def test_no_onnx_file_is_refused(tmp_path: Path) -> None:
    bundle = bundles.early_fusion_classes(tmp_path)
    (bundle.folder / "model.onnx").unlink()
    assert _refusal(place_of(bundle)) == "ONNX_MISSING"


def test_a_corrupt_onnx_file_is_refused(tmp_path: Path) -> None:
    bundle = bundles.early_fusion_classes(tmp_path)
    path = bundle.folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    assert _refusal(place_of(bundle)) == "CORRUPT_MODEL_FILE"


def test_a_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused) as caught:
        load_model(place_of(bundles.early_fusion_classes(tmp_path)), max_bytes=100)
    assert caught.value.reason == "MODEL_TOO_LARGE"


def test_a_patch_model_is_refused_unless_the_case_is_one_patch(tmp_path: Path) -> None:
    free = bundles.early_fusion_classes(tmp_path, name="free", dynamic_shape=True, patch=True)
    assert _refusal(place_of(free)) == "PATCH_DATA"
    cropped = state(bundles.early_fusion_classes(tmp_path, name="cropped", patch=True), fit={"crop": True})
    assert _refusal(place_of(cropped)) == "PATCH_DATA"
    fixed = bundles.early_fusion_classes(tmp_path, name="fixed", patch=True)
    assert load(fixed).model.modalities[0].shape == (12, 14, 10)


def test_a_fit_to_no_stated_shape_is_refused(tmp_path: Path) -> None:
    bundle = state(bundles.early_fusion_classes(tmp_path, dynamic_shape=True), fit={"pad": True})
    assert _refusal(place_of(bundle)) == "FIT_IMPOSSIBLE"


def test_an_input_that_the_metadata_does_not_know_is_refused(tmp_path: Path) -> None:
    def rename(metadata: dict[str, Any]) -> None:
        inputs = metadata["network_data_format"]["inputs"]
        inputs["coronal"] = inputs.pop("sagittal")

    assert _refusal(place_of(edit_metadata(bundles.late_fusion(tmp_path), rename))) == "INPUT_UNKNOWN"


def test_an_input_without_channels_is_refused(tmp_path: Path) -> None:
    nodes = [("ReduceMean", ["image"], "pred", {"keepdims": 1})]
    assert _odd_refusal(tmp_path, {"pred": (1, 1, 1)}, nodes, inputs={"image": (8, 8, 8)}) == "INPUT_RANK"


def test_a_batch_axis_fixed_above_one_is_refused(tmp_path: Path) -> None:
    nodes = [POOL, ("Flatten", ["pooled"], "pred", {"axis": 1})]
    assert _odd_refusal(tmp_path, {"pred": (4, 1)}, nodes, inputs={"image": (4, 1, 8, 8, 8)}) == "BATCH_FIXED"


def test_an_integer_input_is_refused(tmp_path: Path) -> None:
    nodes = [("Cast", ["image"], "floats", {"to": 1}), ("ReduceMax", ["floats"], "pred", {})]
    assert _odd_refusal(tmp_path, {"pred": ("batch", 1)}, nodes, input_type=TensorProto.INT32) == "INPUT_TYPE"


def test_several_outputs_of_which_none_is_described_are_refused(tmp_path: Path) -> None:
    nodes = [POOL, ("Flatten", ["pooled"], "a", {}), ("Flatten", ["pooled"], "b", {})]
    place = write_bundle(tmp_path, inputs={"image": VOLUME}, outputs={"a": ("batch", 1), "b": ("batch", 1)}, nodes=nodes)
    text = (tmp_path / "metadata.json").read_text()
    (tmp_path / "metadata.json").write_text(text.replace('"a"', '"pred"'))
    assert _refusal(place) == "OUTPUT_UNKNOWN"


def test_a_segmentation_on_another_grid_is_refused(tmp_path: Path) -> None:
    nodes = [("MaxPool", ["image"], "pred", {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]})]
    assert _odd_refusal(tmp_path, {"pred": ("batch", 1, 4, 4, 4)}, nodes) == "OUTPUT_SHAPE"


def test_a_softmax_over_one_number_is_refused(tmp_path: Path) -> None:
    nodes = [POOL, FLAT, ("Softmax", ["flat"], "pred", {"axis": 1})]
    assert _odd_refusal(tmp_path, {"pred": ("batch", 1)}, nodes) == "OUTPUT_SHAPE"
