"""What is wrong with a command line."""

from __future__ import annotations

from voxplain.errors import InvalidSpec


class UsageFault(InvalidSpec):
    """The command line is wrong; nothing was sent.

    Args:
        option: the option at fault, for example `--set occlusion.window`.
        message: what is wrong and what is allowed.
    """

    def __init__(self, option: str, message: str) -> None:
        super().__init__("USAGE", message, field=option)
