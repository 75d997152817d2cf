"""Which values of a graph depend on the voxels of which inputs."""

from collections.abc import Iterable

from voxplain_server.graph.onnx_graph import Graph, Node

_SIZE_ONLY = frozenset({"Shape", "Size"})


def dependence(graph: Graph) -> dict[str, frozenset[str]]:
    """For every value that depends on voxels: the graph inputs it depends on. What depends on their sizes alone is left out."""
    found = {name: frozenset({name}) for name in graph.inputs}
    for node in graph.nodes:
        sources = sources_of(node, found)
        if sources:
            found.update((value, sources) for value in node.outputs if value)
    return found


def sources_of(node: Node, known: dict[str, frozenset[str]]) -> frozenset[str]:
    """The graph inputs whose voxels `node` depends on, given those of the values before it."""
    if node.op in _SIZE_ONLY:
        return frozenset()
    return _union(known.get(value, frozenset()) for value in node.inputs)


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)
