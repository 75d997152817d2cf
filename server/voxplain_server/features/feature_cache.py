"""Groupings and baselines of one case, made once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from voxplain_server.features.feature_set import FeatureSet, Labels

Volumes = tuple[npt.NDArray[np.float32], ...]
Made = TypeVar("Made", FeatureSet, Labels, Volumes)


class FeatureCache:
    """Remembers what was made of one case, so that the methods of a call share supervoxels and baselines.

    It belongs to one case: whoever holds a case keeps one beside it, and both go together.

    Args:
        threads: how many things may be made side by side.
    """

    __slots__ = ("_made", "_threads")

    def __init__(self, *, threads: int = 1) -> None:
        self._threads = threads
        self._made: dict[Hashable, FeatureSet | Labels | Volumes] = {}

    @property
    def labels(self) -> dict[Hashable, Labels]:
        """The labels among what is kept: what was costly to make."""
        return {key: made for key, made in self._made.items() if isinstance(made, np.ndarray)}

    def take(self, labels: Mapping[Hashable, Labels]) -> None:
        """Keep labels that were made elsewhere for the same case."""
        self._made.update(labels)

    def remember(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What is kept under a key, made on the first asking."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]  # type: ignore[return-value]

    def remember_each(self, makers: Mapping[Hashable, Callable[[], Made]]) -> list[Made]:
        """What is kept under several keys; what is missing is made side by side."""
        missing = [key for key in makers if key not in self._made]
        if missing:
            with ThreadPoolExecutor(max(1, min(self._threads, len(missing)))) as threads:
                self._made.update(zip(missing, threads.map(lambda key: makers[key](), missing), strict=True))
        return [self._made[key] for key in makers]  # type: ignore[misc]
