"""Methods by the names that people type: kebab names instead of protobuf fields."""

from __future__ import annotations

from voxplain.errors import InvalidSpec
from voxplain.v1 import method_pb2

_CHOICES = method_pb2.Method.DESCRIPTOR.oneofs_by_name["method"].fields

METHOD_NAMES: tuple[str, ...] = tuple(choice.name.replace("_", "-") for choice in _CHOICES)
"""Every method that the contract knows, for example "integrated-gradients", in the contract's order."""


def make_method(name: str, *, key: str = "") -> method_pb2.Method:
    """A method with every parameter at its default.

    Args:
        name: kebab name; underscores are taken too.
        key: names this run; empty: the kebab name.

    Raises:
        InvalidSpec: METHOD_UNKNOWN.
    """
    field = name.replace("-", "_")
    if field.replace("_", "-") not in METHOD_NAMES:
        raise InvalidSpec("METHOD_UNKNOWN", f"methods are {', '.join(METHOD_NAMES)}", field="methods")
    method = method_pb2.Method(key=key)
    getattr(method, field).SetInParent()
    return method


def method_name(method: method_pb2.Method) -> str:
    """The kebab name of a method; empty where none is chosen."""
    return (method.WhichOneof("method") or "").replace("_", "-")


def method_key(method: method_pb2.Method) -> str:
    """The key under which a method's events come back."""
    return method.key or method_name(method)
