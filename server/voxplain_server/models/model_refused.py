"""A bundle that cannot be served."""

from __future__ import annotations


class ModelRefused(Exception):
    """A bundle is not what it must be; the other models still load.

    Args:
        reason: UPPER_SNAKE_CASE code that programs may switch on.
        message: plain words: what is wrong and what to change. It reaches clients, so it holds no text of the bundle.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("refusals cross processes as text, not as pickles")
