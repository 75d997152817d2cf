"""Every place of an ONNX model where a node or a tensor can hide: subgraphs, attributes, functions, sparse tensors."""

from collections.abc import Iterable, Iterator

import onnx

Owner = onnx.GraphProto | onnx.FunctionProto


def owners_of(model: onnx.ModelProto) -> list[Owner]:
    """What holds nodes: the main graph and the model-local functions."""
    return [model.graph, *model.functions]


def nodes_of(owner: Owner) -> Iterator[onnx.NodeProto]:
    """All nodes of a graph or function, those of nested graphs included."""
    waiting = list(owner.node)
    while waiting:
        node = waiting.pop()
        yield node
        for graph in _graphs_of(node.attribute):
            waiting.extend(graph.node)


def graphs_of(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and all nested ones, those within functions included."""
    waiting = [model.graph]
    for function in model.functions:
        waiting.extend(_graphs_of(function.attribute_proto))
        for node in function.node:
            waiting.extend(_graphs_of(node.attribute))
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            waiting.extend(_graphs_of(node.attribute))


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors: initializers, the parts of sparse ones, and those in attributes of nodes and functions."""
    for graph in graphs_of(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for owner in owners_of(model):
        for node in nodes_of(owner):
            yield from _attribute_tensors(node.attribute)
    for function in model.functions:
        yield from _attribute_tensors(function.attribute_proto)
        for graph in _graphs_of(function.attribute_proto):
            for node in nodes_of(graph):
                yield from _attribute_tensors(node.attribute)


def _attribute_tensors(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in (*attribute.sparse_tensors, *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else ())):
            yield from (sparse.values, sparse.indices)


def _graphs_of(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.GraphProto]:
    for attribute in attributes:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
