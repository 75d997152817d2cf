"""What a graph is made of, as far as it decides which methods mean something on it."""

from voxplain_server.graph.dependence import dependence
from voxplain_server.graph.onnx_graph import Graph, Node

_DEEP_LIFT_RULES = frozenset({"Relu", "Elu", "LeakyRelu", "Sigmoid", "Tanh", "Softplus", "MaxPool", "Softmax"})
_LINEAR = frozenset(
    {
        *("AveragePool", "GlobalAveragePool", "BatchNormalization", "Upsample", "Resize"),
        *("Add", "Sub", "Sum", "Mean", "Neg", "ReduceMean", "ReduceSum"),
        *("Identity", "Dropout", "Cast", "CastLike", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Concat"),
        *("Split", "Slice", "Gather", "GatherElements", "GatherND", "ScatterND", "Expand", "Tile", "Pad", "DepthToSpace"),
        *("SpaceToDepth", "Shape", "Size"),
    }
)
_LINEAR_IN_EACH = frozenset({"Conv", "ConvTranspose", "Mul", "MatMul", "Gemm", "Einsum"})
"""Linear as long as one operand only depends on the voxels."""


def has_relu(graph: Graph) -> bool:
    """Whether a ReLU works on what depends on the voxels. Guided backpropagation and deconvolution act on nothing else."""
    voxels = dependence(graph)
    return any(node.op == "Relu" and node.inputs[0] in voxels for node in graph.nodes)


def operators_without_deep_lift_rule(graph: Graph) -> tuple[str, ...]:
    """The ONNX names of non-linear operators on which DeepLIFT falls back to the gradient; sorted, each once.

    Shrikumar et al., "Learning important features through propagating activation differences", ICML 2017, as far as Captum's
    rules reach: ReLU, ELU, leaky ReLU, sigmoid, tanh, softplus, max pooling and softmax. A product of two values that both
    depend on the voxels is non-linear as well.
    """
    voxels = dependence(graph)
    return tuple(sorted({node.op for node in graph.nodes if _lacks_rule(node, [name in voxels for name in node.inputs])}))


def _lacks_rule(node: Node, from_voxels: list[bool]) -> bool:
    if not any(from_voxels) or node.op in _DEEP_LIFT_RULES:
        return False
    if node.op in _LINEAR_IN_EACH:
        # What Conv and Gemm add is linear, whatever it depends on.
        factors = from_voxels[:2] if node.op in ("Conv", "ConvTranspose", "Gemm") else from_voxels
        return sum(factors) > 1
    if node.op == "Div":
        return from_voxels[1]
    if node.op == "Where":
        return from_voxels[0]
    if node.op in ("Gather", "GatherElements", "GatherND"):
        return any(from_voxels[1:])
    return node.op not in _LINEAR
