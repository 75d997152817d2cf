"""Hostile and broken model files are refused with a reason; honest ones are read whole."""

import os
import pathlib
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from voxplain_server.graph.onnx_file import ModelFileError, read_onnx
from voxplain_server.graph.twin import build_twin
from voxplain_server.graph.unsupported_operator import UnsupportedOperator

from tests.server.graph.comparing import MAX_BYTES
from tests.server.graph.tiny_models import relu_model

WEIGHT_BYTES = 48


def write(model: onnx.ModelProto, folder: pathlib.Path) -> pathlib.Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def externalise(tensor: onnx.TensorProto, **entries: str) -> bytes:
    """Empty `tensor` and point it elsewhere; its bytes are returned."""
    content = numpy_helper.to_array(tensor).tobytes()
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return content


def external_model(folder: pathlib.Path, location: str, **entries: str) -> pathlib.Path:
    model = relu_model()
    externalise(model.graph.initializer[0], location=location, **entries)
    return write(model, folder)


def weights_file(path: pathlib.Path, *, before: int = 0) -> bytes:
    content = numpy_helper.to_array(relu_model().graph.initializer[0]).tobytes()
    path.write_bytes(b"\0" * before + content)
    return content


def refusal(path: pathlib.Path, *, max_bytes: int = MAX_BYTES) -> ModelFileError:
    with pytest.raises(ModelFileError) as refused:
        read_onnx(path, max_bytes=max_bytes)
    assert str(path.parent) not in str(refused.value)
    return refused.value


def test_a_self_contained_file_is_read_as_it_is(tmp_path: pathlib.Path) -> None:
    model = read_onnx(write(relu_model(), tmp_path), max_bytes=MAX_BYTES)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Relu"]
    assert numpy_helper.to_array(model.graph.initializer[0]).shape == (4, 3)


def test_external_data_beside_the_file_is_brought_into_it(tmp_path: pathlib.Path) -> None:
    content = weights_file(tmp_path / "weights.bin", before=16)
    path = external_model(tmp_path, "weights.bin", offset="16", length=str(WEIGHT_BYTES))
    tensor = read_onnx(path, max_bytes=MAX_BYTES).graph.initializer[0]
    assert tensor.raw_data == content
    assert tensor.data_location == onnx.TensorProto.DEFAULT
    assert not tensor.external_data


def test_external_data_as_exporters_write_it_is_read(tmp_path: pathlib.Path) -> None:
    model = relu_model()
    expected = numpy_helper.to_array(model.graph.initializer[0])
    onnx.save_model(model, tmp_path / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    assert (tmp_path / "model.onnx.data").stat().st_size >= WEIGHT_BYTES
    tensor = read_onnx(tmp_path / "model.onnx", max_bytes=MAX_BYTES).graph.initializer[0]
    assert np.array_equal(numpy_helper.to_array(tensor), expected)


def test_external_data_counts_towards_the_limit(tmp_path: pathlib.Path) -> None:
    weights_file(tmp_path / "weights.bin")
    path = external_model(tmp_path, "weights.bin")
    size = path.stat().st_size
    assert read_onnx(path, max_bytes=size + WEIGHT_BYTES)
    assert refusal(path, max_bytes=size + WEIGHT_BYTES - 1).reason == "MODEL_TOO_LARGE"


@pytest.mark.parametrize(
    "location",
    ["../weights.bin", "sub/weights.bin", "./weights.bin", "..", ".", "", "..\\weights.bin", "*/_ORT_MEM_ADDR_/*", "a\0b"],
)
def test_external_data_outside_the_folder_is_refused(tmp_path: pathlib.Path, location: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder, folder / "sub"):
        weights_file(place / "weights.bin")
    assert refusal(external_model(folder, location)).reason == "EXTERNAL_DATA_ESCAPES"


def test_external_data_at_an_absolute_path_is_refused(tmp_path: pathlib.Path) -> None:
    weights_file(tmp_path / "weights.bin")
    assert refusal(external_model(tmp_path, str(tmp_path / "weights.bin"))).reason == "EXTERNAL_DATA_ESCAPES"


def symbolic_link(target: pathlib.Path, link: pathlib.Path) -> None:
    link.symlink_to(target)


def hard_link(target: pathlib.Path, link: pathlib.Path) -> None:
    link.hardlink_to(target)


def folder_instead(target: pathlib.Path, link: pathlib.Path) -> None:
    link.mkdir()


def named_pipe(target: pathlib.Path, link: pathlib.Path) -> None:
    os.mkfifo(link)


def nothing(target: pathlib.Path, link: pathlib.Path) -> None:
    pass


@pytest.mark.parametrize("place", [symbolic_link, hard_link, folder_instead, named_pipe, nothing])
def test_external_data_that_is_no_plain_file_of_its_own_is_refused(
    tmp_path: pathlib.Path, place: Callable[[pathlib.Path, pathlib.Path], None]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    weights_file(tmp_path / "secret")
    place(tmp_path / "secret", folder / "weights.bin")
    assert refusal(external_model(folder, "weights.bin")).reason == "EXTERNAL_DATA_ESCAPES"


@pytest.mark.parametrize("offset", ["1", "48", "999999999999", "-1", "+1", "1e3", "٣", ""])
def test_external_data_beyond_its_file_is_refused(tmp_path: pathlib.Path, offset: str) -> None:
    weights_file(tmp_path / "weights.bin")
    assert refusal(external_model(tmp_path, "weights.bin", offset=offset)).reason == "EXTERNAL_DATA_OUT_OF_RANGE"


def test_external_data_of_another_length_than_its_tensor_is_refused(tmp_path: pathlib.Path) -> None:
    weights_file(tmp_path / "weights.bin")
    assert refusal(external_model(tmp_path, "weights.bin", length="44")).reason == "TENSOR_SIZE_MISMATCH"


def attribute_tensor(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.graph.node.insert(0, helper.make_node("Constant", [], ["unused"], value=tensor))


def subgraph_initializer(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    branch = helper.make_graph([], "branch", [], [helper.make_empty_tensor_value_info("w2")], [tensor])
    model.graph.node.append(helper.make_node("If", ["c"], ["unused"], then_branch=branch, else_branch=branch))


def nested_subgraph_attribute(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    constant = helper.make_node("Constant", [], ["inner"], value=tensor)
    leaf = helper.make_graph([constant], "leaf", [], [helper.make_empty_tensor_value_info("inner")])
    choice = helper.make_node("If", ["c"], ["outer"], then_branch=leaf, else_branch=leaf)
    branch = helper.make_graph([choice], "branch", [], [helper.make_empty_tensor_value_info("outer")])
    model.graph.node.append(helper.make_node("If", ["c"], ["unused"], then_branch=branch, else_branch=branch))


def function_attribute(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    constant = helper.make_node("Constant", [], ["y"], value=tensor)
    model.functions.append(helper.make_function("mine", "f", [], ["y"], [constant], [helper.make_opsetid("", 18)]))


def function_default(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    default = helper.make_attribute("held", tensor)
    relu = helper.make_node("Relu", ["x"], ["y"])
    function = helper.make_function(
        "mine", "f", ["x"], ["y"], [relu], [helper.make_opsetid("", 18)], attribute_protos=[default]
    )
    model.functions.append(function)


def sparse_initializer(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.graph.sparse_initializer.add(values=tensor, indices=numpy_helper.from_array(np.arange(12)), dims=[12])


HIDING_PLACES = [
    attribute_tensor,
    subgraph_initializer,
    nested_subgraph_attribute,
    function_attribute,
    function_default,
    sparse_initializer,
]


@pytest.mark.parametrize("hide", HIDING_PLACES)
def test_external_data_is_found_wherever_it_hides(
    tmp_path: pathlib.Path, hide: Callable[[onnx.ModelProto, onnx.TensorProto], None]
) -> None:
    model = relu_model()
    tensor = numpy_helper.from_array(np.zeros(12, np.float32), "w2")
    externalise(tensor, location="/etc/hostname")
    hide(model, tensor)
    assert refusal(write(model, tmp_path)).reason == "EXTERNAL_DATA_ESCAPES"


def test_external_data_in_a_training_graph_is_dropped_unread(tmp_path: pathlib.Path) -> None:
    model = relu_model()
    tensor = numpy_helper.from_array(np.zeros(12, np.float32), "w2")
    externalise(tensor, location="/etc/hostname")
    model.training_info.add().initialization.initializer.append(tensor)
    assert not read_onnx(write(model, tmp_path), max_bytes=MAX_BYTES).training_info


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path: pathlib.Path, keep: float) -> None:
    content = relu_model().SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(content[: int(len(content) * keep)])
    assert refusal(path).reason == "CORRUPT_MODEL_FILE"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_random_bytes_are_refused(tmp_path: pathlib.Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert refusal(path).reason in ("CORRUPT_MODEL_FILE", "TENSOR_SIZE_MISMATCH", "UNKNOWN_OPERATOR_DOMAIN")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_built_or_refused_but_never_crashes(tmp_path: pathlib.Path, data: st.DataObject) -> None:
    content = bytearray(relu_model().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    try:
        twin = build_twin(read_onnx(path, max_bytes=MAX_BYTES))
    except ModelFileError as refused:
        assert refused.reason.isupper()
    except UnsupportedOperator as refused:
        assert refused.ops
    else:
        assert twin.onnx_values


def test_a_file_over_the_limit_is_refused_unread(tmp_path: pathlib.Path) -> None:
    path = write(relu_model(), tmp_path)
    assert refusal(path, max_bytes=path.stat().st_size - 1).reason == "MODEL_TOO_LARGE"


@pytest.mark.parametrize("place", [folder_instead, named_pipe, nothing])
def test_what_is_no_file_is_refused(tmp_path: pathlib.Path, place: Callable[[pathlib.Path, pathlib.Path], None]) -> None:
    place(tmp_path, tmp_path / "model.onnx")
    assert refusal(tmp_path / "model.onnx").reason == "MODEL_FILE_UNREADABLE"


def test_a_custom_operator_domain_is_refused(tmp_path: pathlib.Path) -> None:
    model = relu_model()
    model.graph.node[1].domain = "com.example"
    model.opset_import.add(domain="com.example", version=1)
    assert refusal(write(model, tmp_path)).reason == "UNKNOWN_OPERATOR_DOMAIN"


def test_a_custom_operator_domain_within_a_subgraph_is_refused(tmp_path: pathlib.Path) -> None:
    model = relu_model()
    node = helper.make_node("Evil", ["x"], ["z"], domain="com.example")
    branch = helper.make_graph([node], "branch", [], [helper.make_empty_tensor_value_info("z")])
    model.graph.node.append(helper.make_node("If", ["c"], ["unused"], then_branch=branch, else_branch=branch))
    assert refusal(write(model, tmp_path)).reason == "UNKNOWN_OPERATOR_DOMAIN"


def test_a_standard_operator_that_does_not_exist_is_refused(tmp_path: pathlib.Path) -> None:
    model = relu_model()
    model.graph.node[1].op_type = "Relux"
    assert refusal(write(model, tmp_path)).reason == "CORRUPT_MODEL_FILE"


@pytest.mark.parametrize("dims", [[4, 4], [2, 3], [4, -3], [1 << 40, 1 << 40], [-4, -3]])
def test_an_initializer_that_does_not_fit_its_dimensions_is_refused(tmp_path: pathlib.Path, dims: list[int]) -> None:
    model = relu_model()
    model.graph.initializer[0].dims[:] = dims
    assert refusal(write(model, tmp_path)).reason in ("TENSOR_SIZE_MISMATCH", "CORRUPT_MODEL_FILE")


def test_a_typed_field_that_does_not_fit_its_dimensions_is_refused(tmp_path: pathlib.Path) -> None:
    model = relu_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend(range(11))
    assert refusal(write(model, tmp_path)).reason == "TENSOR_SIZE_MISMATCH"


def local_function(name: str, calls: list[str]) -> onnx.FunctionProto:
    nodes = [
        helper.make_node(call, [f"v{index}"], [f"v{index + 1}"], domain="" if call == "Relu" else "mine")
        for index, call in enumerate(calls)
    ]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    return helper.make_function("mine", name, ["v0"], [f"v{len(calls)}"], nodes, opsets)


def model_with(functions: list[onnx.FunctionProto]) -> onnx.ModelProto:
    model = relu_model()
    model.graph.node[1].domain, model.graph.node[1].op_type = "mine", functions[0].name
    model.opset_import.add(domain="mine", version=1)
    model.functions.extend(functions)
    return model


def test_local_functions_are_inlined(tmp_path: pathlib.Path) -> None:
    path = write(model_with([local_function("f", ["g", "Relu"]), local_function("g", ["Relu"])]), tmp_path)
    model = read_onnx(path, max_bytes=MAX_BYTES)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Relu", "Relu"]
    assert [entry.domain for entry in model.opset_import] == [""]
    assert not model.functions


def test_functions_that_call_one_another_for_ever_are_refused(tmp_path: pathlib.Path) -> None:
    path = write(model_with([local_function("f", ["g"]), local_function("g", ["f"])]), tmp_path)
    assert refusal(path).reason == "CORRUPT_MODEL_FILE"


def test_functions_that_unfold_without_measure_are_refused(tmp_path: pathlib.Path) -> None:
    doubling = [local_function(f"f{level}", [f"f{level + 1}"] * 2) for level in range(40)]
    path = write(model_with([*doubling, local_function("f40", ["Relu"])]), tmp_path)
    assert refusal(path).reason == "MODEL_TOO_LARGE"
