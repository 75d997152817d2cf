"""Gradient passes of one case and score, done once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any


class PassCache:
    """Remembers what a pass through the twin gave, so that the methods of a call share it.

    Gradient and input times gradient need one backward pass between them, guided backpropagation and guided Grad-CAM too, and
    all of them one forward pass. It
    belongs to one case, one score and one twin: whoever holds a case keeps one beside it, and both go together.
    """

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def remember(self, key: Hashable, make: Callable[[], Any]) -> tuple[Any, bool]:
        """What is kept under a key, made on the first asking, and whether it was made just now."""
        made_now = key not in self._made
        if made_now:
            self._made[key] = make()
        return self._made[key], made_now

    def forget(self, key: Hashable) -> None:
        """Let go of what is kept under a key; it is made again when somebody asks."""
        self._made.pop(key, None)
