"""The layer that Grad-CAM looks at, for every kind of network."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import helper
from voxplain_server.graph.cam_layer import NO_CONVOLUTION_LAYER, CamLayers, find_cam_layer
from voxplain_server.graph.graph_reader import read_graph

from tests.server.graph.comparing import read
from tests.server.graph.conftest import Exported
from tests.server.graph.tiny_models import Dimensions, model_of

EXPORTERS = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])


def layers_of(
    nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, Dimensions], weights: Mapping[str, tuple[int, ...]]
) -> CamLayers:
    constants = {name: np.ones(shape, np.float32) for name, shape in weights.items()}
    return find_cam_layer(read_graph(model_of(nodes, inputs=inputs, outputs=["y"], constants=constants)))


def values_of(found: CamLayers) -> list[tuple[str, tuple[str, ...]]]:
    assert found.reason is None
    return [(layer.value, layer.inputs) for layer in found.layers]


@EXPORTERS
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("vgg", ("batch", 8, 8, 8, 8)),
        ("resnet18", ("batch", 32, 2, 2, 2)),
        ("unet", ("batch", 12, 4, 4, 4)),
        ("basicunet", ("batch", 8, 2, 2, 2)),
        ("linknet", ("batch", 12, 4, 4, 4)),
    ],
)
def test_one_volume_has_one_layer(name: str, shape: tuple[str | int, ...], dynamo: bool, exported: Exported) -> None:
    graph = read_graph(read(exported(name, dynamo=dynamo)))
    found = find_cam_layer(graph)
    assert [(layer.inputs, layer.shape) for layer in found.layers] == [(("input_0",), shape)]
    maker = graph.producer(found.layers[0].value)
    assert maker is not None
    assert maker.op == "Conv"


@EXPORTERS
def test_late_fusion_has_one_layer_per_branch(dynamo: bool, exported: Exported) -> None:
    found = find_cam_layer(read_graph(read(exported("mrnet", dynamo=dynamo))))
    assert [layer.inputs for layer in found.layers] == [("input_0",), ("input_1",), ("input_2",)]
    assert [layer.shape for layer in found.layers] == [(3, 8, 5, 5), (4, 8, 5, 5), (2, 8, 4, 4)]


@EXPORTERS
def test_a_patch_embedding_alone_is_no_convolution(dynamo: bool, exported: Exported) -> None:
    found = find_cam_layer(read_graph(read(exported("vit", dynamo=dynamo))))
    assert found == CamLayers((), NO_CONVOLUTION_LAYER)


def test_a_network_without_convolutions_has_none() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    assert layers_of(nodes, {"x": (1, 4)}, {"w": (4, 2)}).reason == NO_CONVOLUTION_LAYER


def test_a_shortcut_written_last_does_not_win_over_the_longer_way() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h1"], ["h2"]),
        helper.make_node("Conv", ["h2", "b"], ["h3"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x", "c"], ["shortcut"]),
        helper.make_node("Add", ["h3", "shortcut"], ["h4"]),
        helper.make_node("GlobalAveragePool", ["h4"], ["y"]),
    ]
    weights = {"a": (2, 1, 3, 3), "b": (2, 2, 3, 3), "c": (2, 1, 1, 1)}
    assert values_of(layers_of(nodes, {"x": (1, 1, 8, 8)}, weights)) == [("h3", ("x",))]


def test_a_convolution_on_pooled_channels_does_not_count() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"]),
        helper.make_node("GlobalAveragePool", ["h"], ["pooled"]),
        helper.make_node("Conv", ["pooled", "b"], ["gate"]),
        helper.make_node("Mul", ["h", "gate"], ["scaled"]),
        helper.make_node("GlobalAveragePool", ["scaled"], ["y"]),
    ]
    assert values_of(layers_of(nodes, {"x": (1, 1, 8, 8)}, {"a": (2, 1, 3, 3), "b": (2, 2, 1, 1)})) == [("h", ("x",))]


def test_modalities_that_meet_in_space_share_the_layer_after_it() -> None:
    nodes = [
        helper.make_node("Conv", ["t1", "a"], ["h1"]),
        helper.make_node("Conv", ["t2", "b"], ["h2"]),
        helper.make_node("Concat", ["h1", "h2"], ["joined"], axis=1),
        helper.make_node("Conv", ["joined", "c"], ["h3"]),
        helper.make_node("GlobalAveragePool", ["h3"], ["y"]),
    ]
    inputs = {"t1": (1, 1, 8, 8), "t2": (1, 1, 8, 8)}
    weights = {"a": (2, 1, 3, 3), "b": (2, 1, 3, 3), "c": (2, 4, 3, 3)}
    assert values_of(layers_of(nodes, inputs, weights)) == [("h3", ("t1", "t2"))]


def test_a_size_taken_from_another_volume_does_not_join_branches() -> None:
    nodes = [
        helper.make_node("Conv", ["t1", "a"], ["h1"]),
        helper.make_node("ReduceMax", ["h1"], ["m1"], keepdims=0),
        helper.make_node("Conv", ["t2", "b"], ["h2"]),
        helper.make_node("Shape", ["t1"], ["size"]),
        helper.make_node("Cast", ["size"], ["numbers"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["numbers"], ["n"], keepdims=0),
        helper.make_node("Mul", ["h2", "n"], ["scaled"]),
        helper.make_node("ReduceMax", ["scaled"], ["m2"], keepdims=0),
        helper.make_node("Add", ["m1", "m2"], ["y"]),
    ]
    inputs = {"t1": ("n", 1, 8, 8), "t2": ("n", 1, 6, 6)}
    found = layers_of(nodes, inputs, {"a": (2, 1, 3, 3), "b": (2, 1, 3, 3)})
    assert values_of(found) == [("h1", ("t1",)), ("h2", ("t2",))]
