"""Files of one real model, each spoilt in one of several ways, from a seed and a number: each can be made again."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto, helper

Spoil = Callable[[bytes, random.Random, Path], bytes]
_UPWARDS = ("../{0}", "../../{0}", "../../../{0}", "../../../../{0}", "./../{0}", "..\\{0}")
_LOCATIONS = (*_UPWARDS, "{1}", "file://{1}", "link", "linked/{0}")
_VARINTS = (b"\xff" * 9 + b"\x01", b"\xff" * 10, b"\xff\xff\xff\xff\x0f", b"\x80" * 9 + b"\x01", b"\xff\xff\xff\x7f")
_SIZES = (0, -1, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1)


def mutant(whole: bytes, number: int, *, seed: int, secret: Path) -> bytes:
    """One spoilt file.

    Args:
        whole: the bytes of the model.
        number: of the mutant; the ways take turns.
        seed: of them all.
        secret: a file that nobody may read. `link` and `linked` in the model's folder may lead to it and to its folder.
    """
    return _WAYS[number % len(_WAYS)](whole, random.Random(f"{seed}-{number}"), secret)


def _flip(whole: bytes, draws: random.Random, secret: Path) -> bytes:
    content = bytearray(whole)
    for _ in range(draws.choice((1, 1, 2, 4, 16, 64))):
        content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
    return bytes(content)


def _scatter(whole: bytes, draws: random.Random, secret: Path) -> bytes:
    """Few bytes in the first tenth, where names, lengths and types stand close."""
    content = bytearray(whole)
    for _ in range(draws.choice((1, 2, 4, 8))):
        content[draws.randrange(max(len(content) // 10, 1))] = draws.randrange(256)
    return bytes(content)


def _cut(whole: bytes, draws: random.Random, secret: Path) -> bytes:
    return whole[: draws.randrange(len(whole))]


def _shift(whole: bytes, draws: random.Random, secret: Path) -> bytes:
    """A stretch is missing, doubled or foreign."""
    at, length = draws.randrange(len(whole)), draws.randrange(1, 512)
    inside = draws.choice((b"", whole[at : at + length] * 2, draws.randbytes(length)))
    return whole[:at] + inside + whole[at + length :]


def _lie_about_a_length(whole: bytes, draws: random.Random, secret: Path) -> bytes:
    """A varint that says far more than there is: the longest that there can be, or one past 32 or 63 bits."""
    at = draws.randrange(len(whole))
    varint = draws.choice(_VARINTS)
    return whole[:at] + varint + whole[at + draws.choice((0, 1, len(varint))) :]


def _point_elsewhere(whole: bytes, draws: random.Random, secret: Path) -> bytes:
    """Weights that lie outside the folder, or beyond the end of what lies in it."""
    model = onnx.load_model_from_string(whole)
    for tensor in draws.sample(list(model.graph.initializer), draws.choice((1, 1, 2))):
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        location = draws.choice(_LOCATIONS).format(secret.name, secret)
        entries = {"location": location}
        if draws.random() < 0.5:
            entries["offset"] = str(draws.choice(_SIZES))
        if draws.random() < 0.5:
            entries["length"] = str(draws.choice(_SIZES))
        if draws.random() < 0.2:
            entries[draws.choice(("checksum", "basepath", "__class__", "location"))] = str(secret)
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
    return model.SerializeToString()


def _nest(whole: bytes, draws: random.Random, secret: Path) -> bytes:
    """Subgraphs in subgraphs: as deep as protobuf writes them, or deeper, by hand."""
    depth = draws.choice((5, 15, 24, 60, 400, 5000))
    model = onnx.load_model_from_string(whole)
    if depth < 25:
        graph = helper.make_graph([], "leaf", [], [])
        for _ in range(depth):
            graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])
        model.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=graph))
        return model.SerializeToString()
    inner = b""
    for _ in range(depth):
        # GraphProto { node { attribute { g { ... } } } }
        inner = _field(1, _field(5, _field(6, inner)))
    return whole + _field(7, inner)


def _grow(whole: bytes, draws: random.Random, secret: Path) -> bytes:
    """Dimensions, numbers of versions and sizes that nothing has."""
    model = onnx.load_model_from_string(whole)
    kind = draws.randrange(4)
    if kind == 0:
        tensor = draws.choice(list(model.graph.initializer))
        tensor.dims[:] = [draws.choice(_SIZES) for _ in range(draws.randrange(1, 5))]
    elif kind == 1:
        shape = draws.choice([*model.graph.input, *model.graph.output]).type.tensor_type.shape
        for axis in shape.dim:
            if draws.random() < 0.5:
                axis.dim_value = draws.choice(_SIZES)
    elif kind == 2:
        attributes = [each for node in model.graph.node for each in node.attribute if each.ints]
        chosen = draws.choice(attributes)
        chosen.ints[:] = [draws.choice(_SIZES) for _ in chosen.ints]
    else:
        node = draws.choice(list(model.graph.node))
        node.domain = draws.choice(("com.microsoft", "ai.onnx.ml", "../" * 40, "x" * 10000))
        model.opset_import[0].version = draws.choice((0, 1, 999, 1 << 62))
    return model.SerializeToString()


def _field(number: int, content: bytes) -> bytes:
    length, size = b"", len(content)
    while size >= 128:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


_WAYS: tuple[Spoil, ...] = (_flip, _scatter, _cut, _shift, _lie_about_a_length, _point_elsewhere, _nest, _grow)
