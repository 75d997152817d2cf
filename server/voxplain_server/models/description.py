"""A model as bytes: the front gets its catalogue from another process, and nothing is pickled."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits

Kind = TypeVar("Kind")


def model_to_json(model: Model, traits: ModelTraits) -> bytes:
    """Describe a model and its traits as JSON in UTF-8."""
    whole = {"model": _plain(model), "traits": _plain(traits)}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def model_from_json(description: bytes) -> tuple[Model, ModelTraits]:
    """Restore what `model_to_json` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        whole = json.loads(description)
        return _restored(Model, whole["model"]), _restored(ModelTraits, whole["traits"])
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("not the description of a model") from error


def to_json(value: Any) -> bytes:
    """A dataclass as JSON in UTF-8."""
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def from_json(kind: type[Kind], description: bytes) -> Kind:
    """Restore what `to_json` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        restored: Kind = _restored(kind, json.loads(description))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not the description of a {kind.__name__}") from error
    return restored


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {own.name: _plain(getattr(value, own.name)) for own in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _restored(kind: Any, value: Any) -> Any:
    """Build a value of an annotated type from plain JSON; the annotations of the dataclasses are the schema."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        return kind(**{name: _restored(hints[name], item) for name, item in value.items()})
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _restored(next(part for part in parts if part is not types.NoneType), value)
    if origin is tuple:
        kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
        return tuple(_restored(part, item) for part, item in zip(kinds, value, strict=True))
    if origin is dict:
        return {key: _restored(parts[1], item) for key, item in value.items()}
    if kind in (int, float, str, bool):
        if not isinstance(value, (int, float) if kind is float else kind):
            raise TypeError("another type than the annotation")
        return value
    return kind(value)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
