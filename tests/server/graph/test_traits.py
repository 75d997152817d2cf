"""What a graph is made of decides which methods mean something on it."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper
from voxplain_server.graph.graph_reader import read_graph
from voxplain_server.graph.onnx_graph import Graph
from voxplain_server.graph.traits import has_relu, operators_without_deep_lift_rule

from tests.server.graph.comparing import read
from tests.server.graph.conftest import Exported
from tests.server.graph.tiny_models import model_of


def graph_of(*nodes: onnx.NodeProto, constants: Sequence[str] = ("w",)) -> Graph:
    weights = {name: np.ones((4, 4), np.float32) for name in constants}
    return read_graph(model_of(nodes, inputs={"x": ("n", 4)}, outputs=["y"], constants=weights))


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize(
    ("name", "relu", "without_rule"),
    [
        ("vgg", True, ()),
        ("densenet121", True, ()),
        ("resnet18", True, ()),
        ("unet", False, ("InstanceNormalization", "PRelu")),
        ("basicunet", False, ("InstanceNormalization",)),
        ("vit", False, ("Einsum", "Gelu", "LayerNormalization")),
        ("linknet", True, ("InstanceNormalization",)),
        ("mrnet", True, ("ReduceMax",)),
    ],
)
def test_traits_of_exported_networks(
    name: str, relu: bool, without_rule: tuple[str, ...], dynamo: bool, exported: Exported
) -> None:
    graph = read_graph(read(exported(name, dynamo=dynamo)))
    assert has_relu(graph) is relu
    assert operators_without_deep_lift_rule(graph) == without_rule


@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "MatMul", "Div"])
def test_arithmetic_with_a_constant_needs_no_rule(op: str) -> None:
    assert operators_without_deep_lift_rule(graph_of(helper.make_node(op, ["x", "w"], ["y"]))) == ()


@pytest.mark.parametrize(("op", "operands"), [("Mul", ["x", "x"]), ("Div", ["w", "x"]), ("Pow", ["x", "w"]), ("Erf", ["x"])])
def test_a_product_of_voxels_and_a_curve_have_no_rule(op: str, operands: list[str]) -> None:
    assert operators_without_deep_lift_rule(graph_of(helper.make_node(op, operands, ["y"]))) == (op,)


def test_a_decomposed_gelu_is_seen() -> None:
    nodes = (
        helper.make_node("Div", ["x", "w"], ["a"]),
        helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Mul", ["x", "b"], ["y"]),
    )
    assert operators_without_deep_lift_rule(graph_of(*nodes)) == ("Erf", "Mul")


def test_arithmetic_on_sizes_is_no_part_of_the_function() -> None:
    nodes = (
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("Cast", ["size"], ["number"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Sqrt", ["number"], ["root"]),
        helper.make_node("ReduceMax", ["root"], ["scale"], keepdims=0),
        helper.make_node("Mul", ["x", "scale"], ["y"]),
    )
    assert operators_without_deep_lift_rule(graph_of(*nodes)) == ()


def test_a_relu_on_sizes_is_not_a_relu_of_the_network() -> None:
    nodes = (
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("Cast", ["size"], ["number"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Relu", ["number"], ["positive"]),
        helper.make_node("ReduceMax", ["positive"], ["scale"], keepdims=0),
        helper.make_node("Mul", ["x", "scale"], ["y"]),
    )
    assert not has_relu(graph_of(*nodes))
