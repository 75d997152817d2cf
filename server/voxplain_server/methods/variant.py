"""Methods that estimate what another one estimates."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Variant(Protocol):
    """What a method has besides Method, where its values are another's, estimated from another choice of coalitions.

    It has a name of its own, because nobody should get other coalitions than the method asked for draws. It is no further
    method of explaining, so "all methods" leaves it out.

    Attributes:
        variant_of: kebab name of the other method.
    """

    variant_of: str


def variant_of(method: object) -> str:
    """The name of the method whose values a method estimates; empty where it is none."""
    return method.variant_of if isinstance(method, Variant) else ""
