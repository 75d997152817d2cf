"""What the typed view keeps, folds and knows."""

import numpy as np
import onnx
import pytest
from onnx import helper
from voxplain_server.graph.constant_folding import MAX_FOLDED_ELEMENTS
from voxplain_server.graph.graph_reader import read_graph
from voxplain_server.graph.onnx_graph import activation_before_output

from tests.server.graph.comparing import read
from tests.server.graph.conftest import Exported
from tests.server.graph.networks import NETWORKS
from tests.server.graph.tiny_models import model_of, relu_model


def test_values_know_their_maker_their_readers_and_their_shape() -> None:
    graph = read_graph(relu_model())
    assert (graph.inputs, graph.outputs) == (("x",), ("y",))
    maker = graph.producer("h")
    assert maker is not None
    assert (maker.op, maker.inputs) == ("MatMul", ("x", "w"))
    assert [node.op for node in graph.consumers("h")] == ["Relu"]
    assert graph.shape("h") == ("batch", 3)
    assert graph.types["h"] == np.float32
    assert graph.producer("x") is None


def test_the_model_is_not_changed_by_reading_it() -> None:
    model = relu_model()
    before = model.SerializeToString()
    read_graph(model)
    assert model.SerializeToString() == before


def test_chains_on_known_sizes_become_constants() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["channels"]),
        helper.make_node("Constant", [], ["two"], value_int=2),
        helper.make_node("Mul", ["channels", "two"], ["double"]),
        helper.make_node("Cast", ["double"], ["scale"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "scale"], ["y"]),
    ]
    graph = read_graph(model_of(nodes, inputs={"x": ("n", 3)}, outputs=["y"], constants={"one": np.int64(1)}))
    assert [node.op for node in graph.nodes] == ["Mul"]
    assert graph.initializers["scale"] == 6.0
    assert set(graph.initializers) == {"scale"}


def test_what_depends_on_a_dynamic_size_stays_in_the_graph() -> None:
    nodes = [helper.make_node("Shape", ["x"], ["shape"]), helper.make_node("Gather", ["shape", "axis"], ["y"])]
    model = model_of(nodes, inputs={"x": ("n", 3)}, outputs=["y"], constants={"axis": np.int64(0)})
    assert [node.op for node in read_graph(model).nodes] == ["Shape", "Gather"]


def test_operators_that_do_nothing_become_aliases() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Dropout", ["a"], ["b"]),
        helper.make_node("Cast", ["b"], ["c"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Identity", ["d"], ["y"]),
    ]
    graph = read_graph(model_of(nodes, inputs={"x": (2,)}, outputs=["y"]))
    assert [(node.op, node.inputs) for node in graph.nodes] == [("Relu", ("x",)), ("Identity", ("d",))]
    assert graph.resolve("c") == "x"
    assert graph.shape("c") == (2,)
    assert [node.op for node in graph.consumers("b")] == ["Relu"]


def test_a_constant_without_measure_is_not_folded() -> None:
    side = int(MAX_FOLDED_ELEMENTS**0.5) + 1
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["large"]), helper.make_node("Add", ["x", "large"], ["y"])]
    model = model_of(nodes, inputs={"x": (1,)}, outputs=["y"], constants={"size": np.array([side, side])})
    assert [node.op for node in read_graph(model).nodes] == ["ConstantOfShape", "Add"]


def test_nodes_that_no_output_needs_are_left_out() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Exp", ["x"], ["unused"])]
    assert [node.op for node in read_graph(model_of(nodes, inputs={"x": (2,)}, outputs=["y"])).nodes] == ["Relu"]


def test_an_initializer_that_is_also_an_input_is_a_weight() -> None:
    model = relu_model()
    model.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, (4, 3)))
    assert read_graph(model).inputs == ("x",)


def test_a_decimal_attribute_reads_as_it_was_written() -> None:
    nodes = [helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.1)]
    assert read_graph(model_of(nodes, inputs={"x": (2,)}, outputs=["y"])).nodes[0].attributes["alpha"] == 0.1


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_shape_of_an_exported_network_is_known(name: str, dynamo: bool, exported: Exported) -> None:
    graph = read_graph(read(exported(name, dynamo=dynamo)))
    shapes = [graph.shape(value) for node in graph.nodes for value in node.outputs if value]
    assert None not in shapes
    batch = graph.shape(graph.inputs[0])
    assert batch is not None
    assert batch[0] == ("batch" if NETWORKS[name].dynamic_batch else 1)


ENDINGS = {
    "softmax": ([("Softmax", "h", "y")], ("h", "softmax")),
    "sigmoid": ([("Sigmoid", "h", "y")], ("h", "sigmoid")),
    "softmax-flatten": ([("Softmax", "h", "p"), ("Flatten", "p", "y")], ("h", "softmax")),
    "sigmoid-identity": ([("Sigmoid", "h", "p"), ("Identity", "p", "y")], ("h", "sigmoid")),
    "linear": ([("Identity", "h", "y")], ("y", None)),
    "relu": ([("Relu", "h", "y")], ("y", None)),
    "softmax-exp": ([("Softmax", "h", "p"), ("Exp", "p", "y")], ("y", None)),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_value_before_a_final_softmax_or_sigmoid_is_found(ending: str) -> None:
    tail, expected = ENDINGS[ending]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), *(helper.make_node(op, [take], [give]) for op, take, give in tail)]
    model = model_of(nodes, inputs={"x": ("n", 4)}, outputs=["y"], constants={"w": np.ones((4, 3), np.float32)})
    assert activation_before_output(read_graph(model), "y") == expected
