"""The oracle of every rough test: what the server took is given back, by its own books and by the system's."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from pathlib import Path

from voxplain_server.service.case_files import KEPT_NAME
from voxplain_server.workers.ledger import Ledger

_HELD = re.compile(r'voxplain_held\{resource="([a-z_]+)"\} ([-+0-9.e]+)')
_SETTLED_SECONDS = 20.0


def memory_files(pid: int | str = "self") -> int:
    """Descriptors of memory files that a process holds open, by the system's books, but for its upload buffer."""
    found = kept = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name = str(descriptor.readlink())
        except OSError:
            continue
        found += "memfd:voxplain" in name
        kept += f"memfd:{KEPT_NAME}" in name
    return found - min(kept, 1)


def descriptors(pid: int) -> int:
    """Descriptors that a process holds open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    """Threads of a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


async def settle(ledger: Ledger, *, files: int, seconds: float = _SETTLED_SECONDS) -> None:
    """Wait until the books of a front in this process are even and no more than `files` memory files are open.

    Raises:
        AssertionError: that did not come true in time; the message tells what is held.
    """
    until = time.monotonic() + seconds
    while (ledger.left or memory_files() > files) and time.monotonic() < until:
        await asyncio.sleep(0.005)
    assert ledger.left == {}, ledger.left
    assert memory_files() <= files


def held_by(metrics_url: str) -> dict[str, int]:
    """What a server in another process holds by its own books; empty at rest."""
    with urllib.request.urlopen(metrics_url, timeout=10) as page:
        text = page.read().decode()
    held = {name: int(float(amount)) for name, amount in _HELD.findall(text)}
    assert held, "the server shows no books"
    bytes_line = next(line for line in text.splitlines() if line.startswith("voxplain_admitted_bytes "))
    held["admitted_bytes"] = int(float(bytes_line.rpartition(" ")[2]))
    return {name: amount for name, amount in held.items() if amount}


def settle_server(metrics_url: str, pid: int, *, seconds: float = _SETTLED_SECONDS) -> float:
    """Wait until a server in another process is at rest: even books, no memory file open. Returns the seconds it took.

    Raises:
        AssertionError: that did not come true in time.
    """
    began = time.monotonic()
    while (left := held_by(metrics_url)) or memory_files(pid):
        assert time.monotonic() - began < seconds, (left, memory_files(pid))
        time.sleep(0.005)
    return time.monotonic() - began
