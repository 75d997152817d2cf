"""Bounds on model-local functions, checked before they are inlined."""

import functools

import onnx

from voxplain_server.graph.model_file_error import ModelFileError
from voxplain_server.graph.onnx_walk import nodes_of

MAX_INLINED_NODES = 1_000_000
"""Thirty functions that call one another twice make a thousand million nodes out of a file of a few kilobytes."""
_MAX_DEPTH = 64

FunctionKey = tuple[str, str, str]


def function_keys(model: onnx.ModelProto) -> frozenset[FunctionKey]:
    """Domain, name and overload of every function that the file itself defines."""
    return frozenset((function.domain, function.name, function.overload) for function in model.functions)


def check_functions(model: onnx.ModelProto) -> None:
    """Raise ModelFileError if functions call themselves, nest too deeply, or unfold into too many nodes."""
    functions = {(function.domain, function.name, function.overload): function for function in model.functions}
    if len(functions) != len(model.functions):
        raise ModelFileError("CORRUPT_MODEL_FILE", "a function is defined twice: export the model again")
    calls = {
        key: [(node.domain, node.op_type, node.overload) for node in nodes_of(function)] for key, function in functions.items()
    }
    active: list[FunctionKey] = []

    @functools.cache
    def unfolded(key: FunctionKey) -> int:
        if key in active or len(active) >= _MAX_DEPTH:
            raise ModelFileError("CORRUPT_MODEL_FILE", "functions call themselves or nest too deeply: inline them")
        active.append(key)
        total = sum(unfolded(call) if call in functions else 1 for call in calls[key])
        active.pop()
        return total

    called = ((node.domain, node.op_type, node.overload) for node in nodes_of(model.graph))
    total = sum(unfolded(call) if call in functions else 1 for call in called)
    if total > MAX_INLINED_NODES:
        raise ModelFileError("MODEL_TOO_LARGE", "the functions of the model unfold into too many nodes: inline them")
