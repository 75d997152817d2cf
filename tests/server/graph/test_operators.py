"""Each operator of the table, alone, answers as ONNX Runtime does."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import helper
from voxplain_server.graph.graph_reader import read_graph
from voxplain_server.graph.operators import OPERATORS
from voxplain_server.graph.twin import build_twin
from voxplain_server.graph.unsupported_operator import UnsupportedOperator

from tests.server.graph.comparing import run_onnx
from tests.server.graph.tiny_models import model_of

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(11)


def integers(values: Any) -> Array:
    """Whole numbers."""
    return np.array(values, np.int64)


def floats(values: Any) -> Array:
    """Broken numbers."""
    return np.array(values, np.float32)


def normal(*shape: int) -> Array:
    """Normal noise."""
    return RANDOM.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> Array:
    """Numbers from 0.5 to 1.5."""
    return (RANDOM.random(shape) + 0.5).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Case:
    """One node: `inputs` in order; an array is fed, a ("constant", array) is in the file, None is absent."""

    op: str
    inputs: tuple[Any, ...]
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    opset: int = 18
    outputs: int = 1

    def __str__(self) -> str:
        details = "-".join(
            f"{name}={value}" for name, value in self.attributes.items() if not isinstance(value, onnx.TensorProto)
        )
        return f"{self.op}-{self.opset}-{details}".replace(" ", "")


def held(value: Any) -> tuple[str, Any]:
    """A constant of the file."""
    return ("constant", np.asarray(value))


X5, X4, X3, X2 = normal(2, 4, 5, 6, 7), normal(2, 4, 8, 7), normal(2, 4, 9), normal(3, 4)
CHANNELS = held(positive(4))

CASES = [
    *(Case(op, (X3,)) for op in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish", "Mish", "Abs", "Neg", "Sign")),
    *(Case(op, (X3,)) for op in ("Exp", "Erf", "Sin", "Cos", "Floor", "Ceil", "Round", "Identity", "IsNaN")),
    *(Case(op, (positive(3, 4),)) for op in ("Sqrt", "Log", "Reciprocal")),
    Case("LeakyRelu", (X3,), {"alpha": 0.2}),
    Case("LeakyRelu", (X3,)),
    Case("Elu", (X3,), {"alpha": 0.7}),
    Case("Celu", (X3,), {"alpha": 0.7}),
    Case("PRelu", (X5, held(positive(4, 1, 1, 1)))),
    Case("PRelu", (X5, held(positive(1)))),
    Case("PRelu", (X2, held(positive(3, 4)))),
    Case("PRelu", (X2, normal(3, 4))),
    Case("Gelu", (X3,), opset=20),
    Case("Gelu", (X3,), {"approximate": "tanh"}, opset=20),
    Case("Softmax", (X3,), {"axis": 1}),
    Case("Softmax", (X2,), {"axis": 1}, opset=11),
    Case("LogSoftmax", (X3,), {"axis": -1}),
    Case("Conv", (X3, held(normal(6, 4, 3)), held(normal(6)))),
    Case("Conv", (X4, held(normal(6, 2, 3, 3))), {"group": 2, "dilations": [2, 1], "pads": [2, 1, 2, 1]}),
    Case("Conv", (X5, held(normal(6, 4, 3, 3, 2)), held(normal(6))), {"pads": [1, 0, 1, 0, 2, 0], "strides": [2, 1, 2]}),
    Case("Conv", (X5, held(normal(6, 4, 3, 2, 4))), {"auto_pad": "SAME_UPPER", "strides": [2, 2, 1]}),
    Case("Conv", (X4, held(normal(6, 4, 4, 2))), {"auto_pad": "SAME_LOWER", "strides": [1, 2]}),
    Case("Conv", (X4, held(normal(6, 4, 4, 2))), {"auto_pad": "VALID"}),
    Case(
        "ConvTranspose", (X3, held(normal(4, 3, 3)), held(normal(3))), {"strides": [2], "output_padding": [1], "pads": [1, 1]}
    ),
    Case("ConvTranspose", (X4, held(normal(4, 3, 3, 2))), {"group": 2, "strides": [2, 3], "dilations": [2, 1]}),
    Case("ConvTranspose", (X5, held(normal(4, 3, 3, 3, 3))), {"strides": [2, 2, 2], "pads": [1, 0, 1, 0, 1, 0]}),
    Case("ConvTranspose", (X4, held(normal(4, 3, 3, 3))), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case("ConvTranspose", (X4, held(normal(4, 3, 3, 3))), {"strides": [2, 2], "output_shape": [16, 14]}),
    Case("MaxPool", (X3,), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    Case("MaxPool", (X4,), {"kernel_shape": [2, 3], "strides": [2, 2], "ceil_mode": 1}),
    Case("MaxPool", (X5,), {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2], "pads": [0, 1, 0, 1, 0, 1]}),
    Case("MaxPool", (X5,), {"kernel_shape": [2, 3, 2], "dilations": [2, 1, 1]}),
    Case("MaxPool", (X4,), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case("AveragePool", (X5,), {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
    Case("AveragePool", (X4,), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    Case("AveragePool", (X4,), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    Case("AveragePool", (X4,), {"kernel_shape": [3, 2], "pads": [1, 0, 0, 1]}),
    Case("AveragePool", (X3,), {"kernel_shape": [3], "pads": [2, 0], "count_include_pad": 1}),
    # A window larger than the value, which only fits with the border.
    Case("AveragePool", (X5[:, :, :2],), {"kernel_shape": [3, 1, 3], "pads": [1, 0, 1, 1, 0, 1]}),
    Case("AveragePool", (X5[:, :, :2],), {"kernel_shape": [3, 1, 3], "pads": [1, 0, 1, 1, 0, 1], "count_include_pad": 1}),
    Case("AveragePool", (X3,), {"kernel_shape": [2], "strides": [2], "ceil_mode": 1}),
    Case("GlobalAveragePool", (X5,)),
    Case("GlobalMaxPool", (X4,)),
    Case(
        "Resize",
        (X5, None, held(floats([1, 1, 2, 2, 2]))),
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    Case("Resize", (X5, None, held(floats([1, 1, 2, 2, 2]))), {"mode": "linear"}),
    Case("Resize", (X4, None, held(floats([1, 1, 3, 2]))), {"mode": "nearest"}),
    Case(
        "Resize",
        (X4, None, None, held(integers([2, 4, 11, 5]))),
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    Case(
        "Resize",
        (X4, None, None, held(integers([11, 9]))),
        {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel", "axes": [2, 3]},
    ),
    Case(
        "Resize",
        (X4, None, None, held(integers([2, 4, 16, 14]))),
        {"mode": "cubic", "coordinate_transformation_mode": "half_pixel"},
    ),
    Case("Resize", (X3, held(floats([1, 1, 2]))), {"mode": "nearest"}, opset=10),
    Case("Upsample", (X4, held(floats([1, 1, 2, 3]))), {"mode": "nearest"}, opset=9),
    Case("BatchNormalization", (X5, CHANNELS, held(normal(4)), held(normal(4)), CHANNELS), {"epsilon": 1e-3}),
    Case("BatchNormalization", (X2, CHANNELS, held(normal(4)), held(normal(4)), CHANNELS)),
    Case("InstanceNormalization", (X5, CHANNELS, held(normal(4))), {"epsilon": 1e-3}),
    Case("InstanceNormalization", (X3, CHANNELS, held(normal(4)))),
    Case("LayerNormalization", (X3, held(positive(9)), held(normal(9)))),
    Case("LayerNormalization", (X3, held(positive(4, 9))), {"axis": 1, "epsilon": 1e-3}),
    Case("GroupNormalization", (X4, CHANNELS, held(normal(4))), {"num_groups": 2}, opset=21),
    Case("GroupNormalization", (X4, held(positive(2)), held(normal(2))), {"num_groups": 2}),
    Case("Gemm", (X2, held(normal(5, 4)), held(normal(5))), {"transB": 1}),
    Case("Gemm", (X2, held(normal(4, 5)), held(normal(1)))),
    Case("Gemm", (X2, held(normal(4, 5))), {"alpha": 0.5}),
    Case("Gemm", (normal(4, 3), normal(4, 5), held(normal(3, 5))), {"transA": 1, "beta": 2.0}),
    Case("MatMul", (X3, held(normal(9, 5)))),
    Case("MatMul", (X3, normal(2, 9, 3))),
    Case("MatMul", (held(normal(5, 3)), X2)),
    Case("Einsum", (normal(2, 3, 4), normal(2, 5, 4)), {"equation": "bij,bkj->bik"}),
    *(Case(op, (X3, normal(4, 1))) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mean")),
    *(Case(op, (X3, held(normal(9)))) for op in ("Add", "Mul")),
    *(Case(op, (integers([[7, -7, 8]]), integers([2, 2, -3]))) for op in ("Div", "Mod")),
    Case("Mod", (X2, positive(3, 4)), {"fmod": 1}),
    Case("Sum", (X2, normal(3, 4), normal(4))),
    Case("Pow", (positive(3, 4), held(floats(2.5)))),
    Case("Clip", (X2, held(floats(-0.5)), held(floats(0.5)))),
    Case("Clip", (X2, None, floats(0.3))),
    Case("Clip", (X2,), {"min": 0.0, "max": 1.0}, opset=10),
    *(Case(op, (X2, normal(3, 4))) for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    *(Case(op, (X2 > 0, normal(3, 4) > 0)) for op in ("And", "Or", "Xor")),
    Case("Not", (X2 > 0,)),
    Case("Where", (X2 > 0, normal(3, 4), held(floats(0)))),
    Case("ArgMax", (X3,), {"axis": 1, "keepdims": 0}),
    *(Case(op, (X3, held(integers([1, 2])))) for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")),
    *(
        Case(op, (positive(2, 3, 4), held(integers([-1]))))
        for op in ("ReduceSum", "ReduceProd", "ReduceSumSquare", "ReduceLogSum")
    ),
    Case("ReduceLogSumExp", (X3,), {"keepdims": 0}),
    Case("ReduceMax", (X3, held(integers([0]))), {"keepdims": 0}),
    Case("ReduceSum", (X3,), {"noop_with_empty_axes": 1}),
    Case("ReduceMean", (X3,), {"axes": [0, 2], "keepdims": 0}, opset=13),
    Case("Dropout", (X3,)),
    Case("Cast", (X3,), {"to": onnx.TensorProto.INT64}),
    Case("Cast", (X3 > 0,), {"to": onnx.TensorProto.FLOAT}),
    Case("CastLike", (integers([1, 2]), X2)),
    Case("Shape", (X3,), {"start": 1}),
    Case("Size", (X3,)),
    Case("Reshape", (X3, held(integers([0, -1, 3])))),
    Case("Reshape", (X3, integers([8, 9]))),
    Case("Flatten", (X4,), {"axis": 2}),
    Case("Flatten", (X4,)),
    Case("Transpose", (X3,), {"perm": [2, 0, 1]}),
    Case("Transpose", (X3,)),
    Case("Squeeze", (normal(2, 1, 3, 1), held(integers([1, -1])))),
    Case("Squeeze", (normal(2, 1, 3, 1),)),
    Case("Unsqueeze", (X2, held(integers([0, -1])))),
    Case("Unsqueeze", (X2,), {"axes": [1]}, opset=11),
    Case("Concat", (X2, held(normal(3, 2)), normal(3, 1)), {"axis": 1}),
    Case("Split", (X3, held(integers([1, 3]))), {"axis": 1}, outputs=2),
    Case("Split", (X3,), {"axis": 2, "num_outputs": 2}, outputs=2),
    Case("Split", (X3,), {"axis": 1, "split": [2, 2]}, opset=11, outputs=2),
    Case("Slice", (X4, held(integers([1, -3])), held(integers([2**62, -1])), held(integers([2, 3])))),
    Case(
        "Slice", (X4, held(integers([6, 5])), held(integers([-(2**62), 1])), held(integers([2, -1])), held(integers([-2, -1])))
    ),
    Case("Slice", (X2, integers([1]), integers([3]))),
    Case("Slice", (X4,), {"starts": [0, 1], "ends": [2, -1], "axes": [0, 2]}, opset=9),
    Case("Gather", (X3, held(integers([[0, -1], [2, 1]]))), {"axis": 1}),
    Case("Gather", (X3, held(integers(2))), {"axis": 2}),
    Case("Gather", (X3, integers([1, -2]))),
    Case("GatherElements", (X2, held(integers([[0, -1], [2, 1], [3, 3]]))), {"axis": 1}),
    Case("GatherND", (X3, held(integers([[0, 1], [1, 3]])))),
    Case("ScatterND", (X2, held(integers([[0], [2]])), normal(2, 4))),
    Case("Expand", (normal(3, 1), held(integers([2, 1, 4])))),
    Case("Expand", (normal(2, 3, 1), integers([1, 4]))),
    Case("Tile", (X2, held(integers([2, 3])))),
    Case("Pad", (X3, held(integers([0, 1, 2, 0, 0, 3])), held(floats(1.5)))),
    Case("Pad", (X3, held(integers([0, 0, -1, 0, 0, 2])))),
    Case("Pad", (X4, held(integers([1, 2, 3, 0])), None, held(integers([2, 3]))), {"mode": "reflect"}),
    Case("Pad", (X4, held(integers([0, 1, 2, 3, 0, 1, 0, 9]))), {"mode": "edge"}),
    Case("Pad", (X3, held(integers([0, 1, 2, 0, 0, 3]))), {"mode": "wrap"}, opset=19),
    Case("Pad", (X3,), {"mode": "constant", "pads": [0, 0, 1, 0, 0, 1], "value": 2.0}, opset=9),
    Case("DepthToSpace", (normal(1, 8, 2, 3),), {"blocksize": 2, "mode": "CRD"}),
    Case("DepthToSpace", (normal(1, 8, 2, 3),), {"blocksize": 2}),
    Case("ConstantOfShape", (integers([2, 3]),), {"value": onnx.numpy_helper.from_array(floats([0.5]))}),
    Case("ConstantOfShape", (integers([2]),), {"value": onnx.numpy_helper.from_array(integers([4]))}),
    Case("Range", (integers(1), integers(9), integers(3))),
]


def model_for(case: Case) -> tuple[onnx.ModelProto, list[torch.Tensor]]:
    """The model of one node, and what to feed it."""
    names = ["" if value is None else f"in{index}" for index, value in enumerate(case.inputs)]
    constants = {name: value[1] for name, value in zip(names, case.inputs, strict=True) if isinstance(value, tuple)}
    fed = {name: np.asarray(value) for name, value in zip(names, case.inputs, strict=True) if name and name not in constants}
    outputs = [f"out{index}" for index in range(case.outputs)]
    node = helper.make_node(case.op, names, outputs, name="it", **case.attributes)
    model = model_of(
        [node],
        inputs={name: value.shape for name, value in fed.items()},
        input_types={name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in fed.items()},
        outputs=outputs,
        constants=constants,
        opset=case.opset,
    )
    return model, [torch.from_numpy(value.copy()) for value in fed.values()]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_operator_answers_as_onnx_runtime_does(case: Case) -> None:
    model, inputs = model_for(case)
    found = build_twin(model)(*inputs)
    results = found if isinstance(found, tuple) else (found,)
    for result, expected in zip(results, run_onnx(model, inputs), strict=True):
        assert result.shape == expected.shape
        assert result.dtype == expected.dtype
        torch.testing.assert_close(result, expected, rtol=2e-5, atol=2e-5)


def test_every_operator_of_the_table_has_a_case() -> None:
    assert {case.op for case in CASES} == set(OPERATORS)


REFUSED = [
    (Case("Resize", (X5, None, held(floats([1, 2, 1, 1, 1]))), {"mode": "linear"}), "Resize"),
    (
        Case("Resize", (X4, None, held(floats([1, 1, 1.5, 1.5]))), {"coordinate_transformation_mode": "tf_crop_and_resize"}),
        "Resize",
    ),
    (Case("Conv", (X3, normal(6, 4, 3))), "Conv (computed weight)"),
    (Case("Softmax", (X3,), {"axis": 1}, opset=11), "Softmax"),
    (Case("MaxPool", (X3,), {"kernel_shape": [2]}, outputs=2), "MaxPool (indices)"),
    (Case("Hardmax", (X3,)), "Hardmax"),
]


@pytest.mark.parametrize(("case", "named"), REFUSED, ids=lambda value: str(value))
def test_what_torch_cannot_do_exactly_is_refused_by_name(case: Case, named: str) -> None:
    model, _ = model_for(case)
    with pytest.raises(UnsupportedOperator, match="without a differentiable counterpart") as refusal:
        build_twin(model)
    assert refusal.value.ops[0].startswith(named)


def test_the_largest_of_equal_elements_passes_its_gradient_to_one_of_them() -> None:
    model, _ = model_for(Case("ReduceMax", (X3, held(integers([2])))))
    value = torch.zeros(2, 4, 9, requires_grad=True)
    build_twin(model)(value).sum().backward()
    assert value.grad is not None
    assert torch.equal(value.grad.sum(2), torch.ones(2, 4))
    assert float(value.grad.max()) == 1.0


def test_a_reshape_by_a_computed_shape_follows_the_batch() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["y"]),
    ]
    constants = {"zero": integers([0]), "rest": integers([6])}
    model = model_of(nodes, inputs={"x": ("n", 2, 3)}, outputs=["y"], constants=constants)
    assert [node.op for node in read_graph(model).nodes] == ["Shape", "Gather", "Concat", "Reshape"]
    assert build_twin(model)(torch.zeros(5, 2, 3)).shape == (5, 6)
