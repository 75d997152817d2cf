"""Which operators answer to a local change locally, and which boxes they reach and need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from voxplain_server.graph.axis_reach import AxisReach, Slide, Spread, Whole
from voxplain_server.graph.box_reach import Boxes, BoxReach, smallest_common
from voxplain_server.graph.graph_reader import read_graph
from voxplain_server.graph.locality import Locality, analyse_locality
from voxplain_server.graph.onnx_graph import Graph
from voxplain_server.graph.shape_reading import read_shapes
from voxplain_server.graph.twin import build_twin

SIZE = 12


def graph_of(nodes: Sequence[onnx.NodeProto], weights: dict[str, np.ndarray], shape: tuple[int, ...]) -> Graph:
    """One input named x of `shape`, one output named y."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, constants)
    return read_graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


def locality_of(
    nodes: Sequence[onnx.NodeProto], weights: dict[str, np.ndarray], *, shape: tuple[int, ...] = (1, 2, SIZE, SIZE)
) -> Locality:
    graph = graph_of(nodes, weights, shape)
    return analyse_locality(graph, "y", read_shapes(build_twin(graph), [shape]))


def one(op: str, weights: dict[str, np.ndarray] | None = None, **attributes: Any) -> Locality:
    weights = weights or {}
    return locality_of([helper.make_node(op, ["x", *weights], ["y"], **attributes)], weights)


def filled(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


LOCAL: dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]] = {
    "Relu": ({}, {}),
    "Mul": ({"w": filled(1, 2, 1, 1)}, {}),
    "BatchNormalization": ({name: filled(2) for name in "abcd"}, {}),
    "Conv": ({"w": filled(3, 2, 3, 3)}, {"pads": [1, 1, 1, 1]}),
    "ConvTranspose": ({"w": filled(2, 3, 2, 2)}, {"strides": [2, 2]}),
    "MaxPool": ({}, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "AveragePool": ({}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "Pad": ({"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, {}),
    "Transpose": ({}, {"perm": [0, 1, 3, 2]}),
    "Softmax": ({}, {"axis": 1}),
}


@pytest.mark.parametrize("op", LOCAL)
def test_a_small_change_stays_small_behind_a_local_operator(op: str) -> None:
    weights, attributes = LOCAL[op]
    found = one(op, weights, **attributes)
    assert not found.has_tail
    operand, made = found.steps[-1].rule.operands[0], found.shapes["y"]
    reached = BoxReach(operand.axes, found.shapes["x"], made).dirty(boxes([0, 0, 5, 5], [1, 2, 6, 6]))
    assert reached.filled.all()
    assert (reached.size[0, 2:] < np.array(made[2:])).all()


GLOBAL: dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]] = {
    "GlobalAveragePool": ({}, {}),
    "InstanceNormalization": ({"a": filled(2), "b": filled(2)}, {}),
    "ReduceMean": ({"axes": np.array([2, 3])}, {}),
    "Flatten": ({}, {}),
    "Softmax": ({}, {"axis": -1}),
}


@pytest.mark.parametrize("op", GLOBAL)
def test_a_small_change_is_everywhere_behind_a_global_operator(op: str) -> None:
    weights, attributes = GLOBAL[op]
    found = one(op, weights, **attributes)
    operand, made = found.steps[-1].rule.operands[0], found.shapes["y"]
    reach = BoxReach(operand.axes, found.shapes["x"], made)
    reached = reach.dirty(boxes([0, 0, 5, 5], [1, 2, 6, 6]))
    assert reached.size[0, -1] == made[-1]
    _, size = reach.needed(reached.start, reached.size[0])
    assert size[-1] == SIZE


def test_what_has_no_rule_is_left_whole_with_all_behind_it() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("MatMul", ["r", "r"], ["m"]),
        helper.make_node("Relu", ["m"], ["y"]),
    ]
    found = locality_of(nodes, {})
    assert [step.output for step in found.steps] == ["r"]
    assert found.has_tail
    assert found.frontier == ("r",)
    assert found.tail_flops == 2 * 2 * SIZE**3 + 2 * SIZE**2
    assert found.full_flops == found.tail_flops + 2 * SIZE**2


def test_a_constant_that_differs_from_place_to_place_needs_the_whole_axis() -> None:
    found = one("Add", {"w": filled(1, 1, SIZE, 1)})
    axes = found.steps[0].rule.operands[0].axes
    assert axes[2] == Whole(2)
    assert axes[3] == Slide(3)


def test_only_values_that_are_read_elsewhere_are_kept() -> None:
    weight = {"w": filled(2, 2, 3, 3)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    assert locality_of(nodes, weight).kept == {"x", "r", "y"}


def test_a_max_pools_border_never_wins() -> None:
    found = one("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    assert found.steps[0].rule.operands[0].fill == -np.inf


def boxes(start: list[int], stop: list[int]) -> Boxes:
    return Boxes(np.array([start], np.int64), np.array([stop], np.int64))


@st.composite
def reaches(draw: st.DrawFn) -> tuple[AxisReach, int, int]:
    """One axis: how it is followed, the size of the operand and of the result."""
    size = draw(st.integers(1, 9))
    window, step = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    begin = draw(st.integers(0, window - 1))
    if draw(st.booleans()):
        made = (size + 2 * begin - window) // step + 1
        return Slide(0, window, step, begin), size, max(made, 0)
    return Spread(0, window, step, begin), size, max((size - 1) * step + window - 2 * begin, 0)


def pairs(axis: AxisReach, size: int, made: int) -> set[tuple[int, int]]:
    """Which element of the result depends on which of the operand, one by one."""
    found = set()
    for place in range(size):
        for result in range(made):
            if isinstance(axis, Slide):
                distance = place - (result * axis.step - axis.begin)
            else:
                assert isinstance(axis, Spread)
                distance = result - (place * axis.step - axis.begin)
            if 0 <= distance < axis.window:
                found.add((place, result))
    return found


@given(drawn=reaches(), data=st.data())
@settings(max_examples=300, deadline=None)
def test_boxes_reach_all_that_depends_on_them_and_need_all_they_depend_on(
    drawn: tuple[AxisReach, int, int], data: st.DataObject
) -> None:
    axis, size, made = drawn
    if made == 0:
        return
    related = pairs(axis, size, made)
    reach = BoxReach([axis], [size], [made])
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    reached = reach.dirty(boxes([start], [stop]))
    changed = {result for place, result in related if start <= place < stop}
    lower, upper = int(reached.start[0, 0]), int(reached.stop[0, 0])
    assert changed <= set(range(lower, upper))
    if changed:
        # No wider than it must be.
        assert lower == min(changed)
        assert upper == max(changed) + 1
    first = data.draw(st.integers(0, made - 1))
    behind = data.draw(st.integers(first + 1, made))
    at, edges = reach.needed(np.array([[first]]), np.array([behind - first]))
    needed = {place for place, result in related if first <= result < behind}
    assert needed <= set(range(int(at[0, 0]), int(at[0, 0] + edges[0])))


def test_equal_boxes_of_an_enlarged_value_need_equal_boxes_inside_the_operand() -> None:
    reach = BoxReach([Spread(0, 2, 2)], [5], [10])
    start, size = reach.needed(np.array([[0], [1], [7]]), np.array([3]))
    assert size.tolist() == [2]
    assert start.tolist() == [[0], [0], [3]]


def test_boxes_of_one_batch_of_slices_follow_their_slices() -> None:
    found = locality_of(
        [helper.make_node("Squeeze", ["x", "a"], ["s"]), helper.make_node("Relu", ["s"], ["y"])],
        {"a": np.array([0])},
        shape=(1, 4, 3, 6, 6),
    )
    axes = found.steps[0].rule.operands[0].axes
    reached = BoxReach(axes, (1, 4, 3, 6, 6), (4, 3, 6, 6)).dirty(boxes([0, 1, 0, 2, 2], [1, 2, 3, 4, 4]))
    assert reached.start.tolist() == [[1, 0, 2, 2]]
    assert reached.stop.tolist() == [[2, 3, 4, 4]]
    assert not found.steps[0].rule.rows


def test_common_boxes_ignore_empty_ones() -> None:
    empty, small, other = boxes([0, 0], [0, 0]), boxes([1, 2], [3, 4]), boxes([2, 0], [5, 1])
    assert smallest_common(empty, small).start.tolist() == small.start.tolist()
    assert smallest_common(small, empty).stop.tolist() == small.stop.tolist()
    joined = smallest_common(small, other)
    assert (joined.start.tolist(), joined.stop.tolist()) == ([[1, 0]], [[5, 4]])
