"""Defaults that depend on what was asked beside them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from google.protobuf.message import Message


@runtime_checkable
class AdaptiveDefaults(Protocol):
    """What a method may offer besides Method, so that one parameter can be set without another."""

    def adapt_defaults(self, defaults: Message, asked: Message) -> None:
        """Change `defaults` in place so that they fit the parameters that `asked` sets."""
