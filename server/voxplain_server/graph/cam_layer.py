"""Where Grad-CAM looks: the last convolution that still has a place in space, decided from shapes alone.

Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", ICCV 2017.
"""

import dataclasses
import math
from collections.abc import Sequence

from voxplain_server.graph.dependence import dependence
from voxplain_server.graph.onnx_graph import Graph, Node, Shape

NO_CONVOLUTION_LAYER = "NO_CONVOLUTION_LAYER"
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


@dataclasses.dataclass(frozen=True, slots=True)
class CamLayer:
    """The output `value` of one convolution, of `shape` (batch or slices, channels, spatial axes), made from `inputs`."""

    value: str
    inputs: tuple[str, ...]
    shape: Shape


@dataclasses.dataclass(frozen=True, slots=True)
class CamLayers:
    """One layer per branch of the network, in the order of the graph's inputs; or the `reason` why there is none."""

    layers: tuple[CamLayer, ...]
    reason: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Candidate:
    node: Node
    sources: frozenset[str]
    depth: int
    shape: Shape

    @property
    def elements(self) -> float:
        """How many places it has in space; infinite where a size is not known."""
        sizes = self.shape[2:]
        return math.prod(size for size in sizes if isinstance(size, int)) if _all_known(sizes) else math.inf


def find_cam_layer(graph: Graph, *, output: str | None = None) -> CamLayers:
    """The layers for Grad-CAM of `output`, by default the graph's first.

    Classification: the last convolution before the spatial axes are collapsed. Segmentation, which is an output with spatial
    axes: the deepest one, of the smallest spatial size. Where inputs meet only after that (late fusion): one per branch. A
    convolution that only cuts the volume into patches counts only beside others. The reason is NO_CONVOLUTION_LAYER or None.
    """
    output = graph.outputs[0] if output is None else output
    candidates = _candidates(graph, output)
    if all(_is_patch_embedding(graph, candidate.node) for candidate in candidates):
        return CamLayers((), NO_CONVOLUTION_LAYER)
    segments = _is_spatial(graph.shape(output))
    branches = {candidate.sources for candidate in candidates}
    whole = [branch for branch in branches if not any(branch < other for other in branches)]
    whole.sort(key=lambda branch: min(graph.inputs.index(name) for name in branch))
    chosen = [_choose([found for found in candidates if found.sources == branch], segments=segments) for branch in whole]
    layers = (
        CamLayer(layer.node.outputs[0], tuple(name for name in graph.inputs if name in layer.sources), layer.shape)
        for layer in chosen
    )
    return CamLayers(tuple(layers), None)


def _choose(candidates: Sequence[_Candidate], *, segments: bool) -> _Candidate:
    smallest = min(candidate.elements for candidate in candidates)
    deepest = [candidate for candidate in candidates if candidate.elements == smallest] if segments else candidates
    # The longest way from the input, not the place in the file: a shortcut's convolution may stand behind the main path's.
    last = max(candidate.depth for candidate in deepest)
    return [candidate for candidate in deepest if candidate.depth == last][-1]


def _candidates(graph: Graph, output: str) -> list[_Candidate]:
    sources = dependence(graph)
    depths: dict[str, int] = {}
    found = []
    for node in graph.ancestors([output]):
        depth = max((depths.get(value, 0) for value in node.inputs), default=0)
        if node.op in _CONVOLUTIONS and node.inputs[0] in sources:
            shape = graph.shape(node.outputs[0]) or _unknown_shape(graph, node)
            depth += 1
            if _is_spatial(shape):
                found.append(_Candidate(node, sources[node.inputs[0]], depth, shape))
        depths.update((value, depth) for value in node.outputs)
    return found


def _is_patch_embedding(graph: Graph, node: Node) -> bool:
    kernel = tuple(node.attributes.get("kernel_shape", ()))
    stride = tuple(node.attributes.get("strides", ()))
    return node.inputs[0] in graph.inputs and kernel == stride and any(size > 1 for size in kernel)


def _is_spatial(shape: Shape | None) -> bool:
    return shape is not None and any(size != 1 for size in shape[2:])


def _unknown_shape(graph: Graph, node: Node) -> Shape:
    weight = graph.shape(node.inputs[1]) or ()
    return (None,) * len(weight)


def _all_known(sizes: Sequence[int | str | None]) -> bool:
    return all(isinstance(size, int) for size in sizes)
