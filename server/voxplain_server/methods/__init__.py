"""The attribution methods: a file of this folder that defines `METHOD` is a method, and nothing else registers it.

The front imports this for names, defaults and checks, so no file here imports torch, onnxruntime, captum, skimage or scipy
outside the functions that compute.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from voxplain_server.methods.method import Method


@cache
def all_methods() -> Mapping[str, Method]:
    """Every method by its kebab name, in alphabetical order. Read-only.

    Raises:
        TypeError: a file's METHOD lacks something that the Method protocol asks for.
        ValueError: two files define one name.
    """
    found: dict[str, Method] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        method = getattr(module, "METHOD", None)
        if method is None:
            continue
        if not isinstance(method, Method):
            raise TypeError(f"methods/{module_info.name}.py: METHOD is not a Method")
        if method.name in found:
            raise ValueError(f"methods/{module_info.name}.py: the name {method.name} is taken")
        found[method.name] = method
    return MappingProxyType(dict(sorted(found.items())))
