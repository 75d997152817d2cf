"""Fields of the request as the user of the command line knows them."""

from __future__ import annotations

import re

from voxplain.v1 import tensor_pb2

from voxplain_client.method_names import method_key
from voxplain_client.request import Request

_TENSOR = re.compile(r"tensors\[(\d+)\]\.?")
_METHOD = re.compile(r"methods\[(\d+)\](?:\.(\w+)\.?)?")


def name_field(field: str, request: Request) -> str:
    """The server counts tensors and methods; a user knows files by modality and methods by key.

    "tensors[2].shape" becomes "--volume t2 shape", "methods[0].occlusion.window" becomes "--set occlusion.window".
    """
    return _METHOD.sub(lambda found: _method(found, request), _TENSOR.sub(lambda found: _tensor(found, request), field))


def _tensor(found: re.Match[str], request: Request) -> str:
    place = int(found[1])
    if place >= len(request.payloads):
        return found[0]
    header = request.payloads[place].header
    role = tensor_pb2.TensorRole.Name(header.role).removeprefix("TENSOR_ROLE_").lower()
    return " ".join(part for part in (f"--{role}", header.modality) if part) + (" " if found[0].endswith(".") else "")


def _method(found: re.Match[str], request: Request) -> str:
    place = int(found[1])
    if place >= len(request.spec.methods):
        return found[0]
    key = method_key(request.spec.methods[place])
    if found[2] is None or not found[0].endswith("."):
        return f"--method {key}"
    return f"--set {key}."
