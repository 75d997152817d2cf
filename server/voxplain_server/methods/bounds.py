"""What numbers a parameter may hold."""

from __future__ import annotations

import math
from collections.abc import Iterator

from google.protobuf.message import Message

from voxplain_server.methods.method import Violation


def outside(params: Message, field: str, low: float, high: float, *, above: bool = False) -> Iterator[Violation]:
    """Tell whether a number lies outside its bounds.

    Args:
        params: the message that holds it.
        field: its name in that message; also the path in the violation.
        low, high: bounds; both are allowed values.
        above: True: `low` itself is not allowed.

    Yields:
        At most one: NOT_FINITE or OUT_OF_RANGE.
    """
    value = float(getattr(params, field))
    if not math.isfinite(value):
        yield Violation(field=field, reason="NOT_FINITE", message="must be a finite number")
    elif (value <= low if above else value < low) or value > high:
        start = f"greater than {low:g}" if above else f"at least {low:,g}"
        message = f"must be {start}" + (f" and at most {high:,.15g}" if math.isfinite(high) else "")
        yield Violation(field=field, reason="OUT_OF_RANGE", message=message)
