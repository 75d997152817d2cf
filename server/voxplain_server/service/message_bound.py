"""How large one message may be."""

from __future__ import annotations

from voxplain.errors import LimitExceeded

MAX_MESSAGE_BYTES = 4 << 20
"""gRPC's own default, so that no client needs an option; a spec with its checkpoint must fit as well."""


def check_message(message: bytes, most: int = MAX_MESSAGE_BYTES) -> None:
    """Refuse what is larger than this call takes; gRPC itself knows one bound for all calls of a port, the largest.

    Raises:
        LimitExceeded: MESSAGE_TOO_LARGE.
    """
    if len(message) > most:
        raise LimitExceeded("MESSAGE_TOO_LARGE", f"messages of this call may have {most} bytes; send less in one")
