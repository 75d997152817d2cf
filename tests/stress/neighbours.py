"""Which share of the processors went to others while a row was run: on a shared machine, milliseconds are not ours alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

_IDLE = (3, 4)
"""Columns of /proc/stat: idle, and waiting for a disk."""


class Neighbours:
    """Counts from its making on."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.monotonic(), _busy_seconds(), _own_seconds()

    def share(self) -> float:
        """What processes outside this one and the children that it has waited for took, of all processors; 0 to 1."""
        theirs = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        there_was = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        return min(max(theirs / max(there_was, 1e-9), 0.0), 1.0)


def _busy_seconds() -> float:
    ticks = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(each for column, each in enumerate(ticks) if column not in _IDLE) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
