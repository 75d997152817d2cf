"""A value whose type the protocol cannot say."""

from __future__ import annotations

from typing import TypeVar

Kind = TypeVar("Kind")


def checked_cast(value: object, kind: type[Kind]) -> Kind:
    """Give the value back as what it must be: a method's own parameters, or the plan that it made.

    Raises:
        TypeError: it belongs to another method.
    """
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, not {type(value).__name__}")
    return value
