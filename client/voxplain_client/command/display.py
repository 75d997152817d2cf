"""Live progress of an explanation: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console

from voxplain_client.command.live_display import LiveDisplay
from voxplain_client.command.plain_display import PlainDisplay
from voxplain_client.events import Event


class Display(Protocol):
    """Shows events as they come."""

    def show(self, event: Event) -> None:
        """Show one event."""

    def close(self) -> None:
        """Leave the terminal in order."""


def open_display(console: Console, methods: list[str]) -> Display:
    """Bars where the console is a terminal, lines where it is a file or a pipe.

    Args:
        methods: keys in their order.
    """
    return LiveDisplay(console, methods) if console.is_terminal else PlainDisplay(console)
