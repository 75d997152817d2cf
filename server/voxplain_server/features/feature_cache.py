"""Groupings of one case, made once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from voxplain_server.features.feature_set import FeatureSet, Labels

Made = TypeVar("Made", FeatureSet, Labels)


class FeatureCache:
    """Remembers what was grouped for one case, so that the methods of a call share supervoxels.

    It belongs to one case: whoever holds a case keeps one beside it, and both go together.
    """

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[Hashable, FeatureSet | Labels] = {}

    def remember(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What is kept under a key, made on the first asking."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]  # type: ignore[return-value]
