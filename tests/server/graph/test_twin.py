"""What the twin promises beside its numbers."""

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn
from voxplain_server.graph.cam_layer import find_cam_layer
from voxplain_server.graph.graph_reader import read_graph
from voxplain_server.graph.twin import build_twin
from voxplain_server.graph.unsupported_operator import UnsupportedOperator

from tests.server.graph.comparing import distance, read
from tests.server.graph.conftest import Exported
from tests.server.graph.networks import NETWORKS, SWIN_UNETR
from tests.server.graph.tiny_models import model_of, relu_model


def test_every_unknown_operator_is_named_at_once() -> None:
    nodes = [
        helper.make_node("Hardmax", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("LpNormalization", ["b"], ["c"]),
        helper.make_node("Hardmax", ["c"], ["y"]),
    ]
    with pytest.raises(UnsupportedOperator, match="Hardmax, LpNormalization") as refusal:
        build_twin(model_of(nodes, inputs={"x": (2, 3)}, outputs=["y"]))
    assert refusal.value.ops == ("Hardmax", "LpNormalization")


def test_an_unknown_operator_behind_the_asked_output_does_no_harm() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["logits"]), helper.make_node("Hardmax", ["logits"], ["y"])]
    twin = build_twin(model_of(nodes, inputs={"x": (2, 3)}, outputs=["y"]), outputs=["logits"])
    assert torch.equal(twin(torch.ones(2, 3)), torch.ones(2, 3))


def test_other_values_may_be_asked_for_together() -> None:
    hidden, output = build_twin(relu_model(), outputs=["h", "y"])(torch.eye(4))
    assert torch.equal(output, hidden.clamp(min=0))
    assert float(hidden.min()) < 0


@pytest.mark.parametrize("outputs", [["nowhere"], []])
def test_an_output_that_is_no_value_is_refused(outputs: list[str]) -> None:
    with pytest.raises(ValueError, match="outputs"):
        build_twin(relu_model(), outputs=outputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_numbers_are_of_one_type_and_ask_for_no_gradient(dtype: torch.dtype, exported: Exported) -> None:
    twin = build_twin(read(exported("densenet121", dynamo=False)), dtype=dtype)
    floats = [tensor for tensor in (*twin.parameters(), *twin.buffers()) if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in floats} == {dtype}
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert not any(module.training for module in twin.modules())


def test_casts_to_a_float_follow_the_type_of_the_twin() -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.FLOAT)]
    model = model_of(nodes, inputs={"x": (2,)}, outputs=["y"], input_types={"x": onnx.TensorProto.INT64})
    assert build_twin(model, dtype=torch.float64)(torch.tensor([1, 2])).dtype == torch.float64


@pytest.mark.parametrize("name", ["resnet18", "mrnet"])
def test_every_relu_is_a_module_of_its_own(name: str, exported: Exported) -> None:
    model = read(exported(name, dynamo=False))
    twin = build_twin(model)
    calls = [node.target for node in twin.graph.nodes if node.op == "call_module"]
    relus = [target for target in calls if type(twin.get_submodule(target)) is nn.ReLU]
    assert len(relus) == len(set(relus)) == sum(node.op_type == "Relu" for node in model.graph.node)


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_the_layer_for_grad_cam_is_a_submodule_found_by_its_onnx_name(dynamo: bool, exported: Exported) -> None:
    model = read(exported("vgg", dynamo=dynamo))
    graph = read_graph(model)
    twin = build_twin(graph)
    value = find_cam_layer(graph).layers[0].value
    layer = twin.get_submodule(twin.onnx_values[value])
    assert isinstance(layer, nn.Conv3d)
    seen: list[torch.Tensor] = []
    layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    (volume,) = NETWORKS["vgg"].inputs()
    with torch.no_grad():
        twin(volume)
        expected = build_twin(graph, outputs=[value])(volume)
    assert torch.equal(seen[0], expected)


def test_values_of_operators_that_do_nothing_are_found_too() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    twin = build_twin(model_of(nodes, inputs={"x": (2,)}, outputs=["y"]))
    assert twin.onnx_values["a"] == twin.onnx_values["b"]
    assert twin.onnx_values["x"] == "x"


def test_names_that_python_does_not_allow_are_mended() -> None:
    nodes = [
        helper.make_node("Relu", ["0 in:put"], ["/a/b.c"], name="/layer.0/Relu"),
        helper.make_node("Neg", ["/a/b.c"], ["class"], name="for"),
    ]
    twin = build_twin(model_of(nodes, inputs={"0 in:put": (2,)}, outputs=["class"]))
    assert torch.equal(twin(torch.tensor([-1.0, 2.0])), torch.tensor([0.0, -2.0]))
    assert all(name.isidentifier() for name in twin.onnx_values.values())


def test_a_copy_keeps_its_names_and_its_numbers(exported: Exported) -> None:
    twin = build_twin(read(exported("vgg", dynamo=False)))
    other = copy.deepcopy(twin)
    (volume,) = NETWORKS["vgg"].inputs()
    assert other.onnx_values == twin.onnx_values
    with torch.no_grad():
        assert torch.equal(other(volume), twin(volume))


def test_the_model_may_be_freed_after_the_twin_is_built() -> None:
    model = relu_model()
    twin = build_twin(model)
    before = twin(torch.eye(4))
    model.graph.initializer[0].raw_data = np.zeros(12, np.float32).tobytes()
    del model
    assert torch.equal(twin(torch.eye(4)), before)


def test_swin_unetr_is_read(exported: Exported) -> None:
    twin = build_twin(read(exported("swin-unetr", dynamo=False)), dtype=torch.float64)
    original, inputs = SWIN_UNETR.build().double(), SWIN_UNETR.inputs(dtype=torch.float64)
    assert distance(twin, original, inputs) <= 1e-6


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "densenet121"])
def test_the_twin_computes_wherever_its_inputs_are(name: str, exported: Exported) -> None:
    # The meta device refuses to be mixed with the CPU just as an accelerator does, and every host has one.
    inputs = [tensor.to("meta") for tensor in NETWORKS[name].inputs()]
    scores = build_twin(read(exported(name, dynamo=False))).to("meta")(*inputs)
    assert scores.device.type == "meta"
    assert scores.shape == NETWORKS[name].build()(*NETWORKS[name].inputs()).shape
