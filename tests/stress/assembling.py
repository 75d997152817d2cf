"""Spoiled uploads against the receiver of the front: what is accepted is what was sent, and nothing else happens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import cast

import numpy as np
from voxplain.errors import VoxplainError
from voxplain_server.service.call_observer import CallObserver
from voxplain_server.service.case_files import CaseFiles
from voxplain_server.service.receive import Context, Upload, lay_out
from voxplain_server.settings import Limits
from voxplain_server.workers.ledger import Ledger

from tests.oracle import settle
from tests.stress import mutation


class Counter:
    """A CallObserver that counts bytes; a receiver tells nothing else."""

    def __init__(self) -> None:
        self.received = 0

    def bytes_moved(self, *, received: int = 0, sent: int = 0) -> None:
        """Bytes came in."""
        self.received += received


class Stream:
    """A call whose messages are known."""

    def __init__(self, messages: Sequence[bytes]) -> None:
        self._messages = list(reversed(messages))

    async def read(self) -> object:
        """The next message; what is no bytes, at the end."""
        return self._messages.pop() if self._messages else None


class Tally:
    """What came of many uploads."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.wrong: list[str] = []


async def assemble(count: int, *, seed: int) -> Tally:
    """Send so many uploads; every deviation from a plain reading of the same messages is told in `wrong`."""
    rng, ledger, tally, limits = np.random.default_rng(seed), Ledger(), Tally(), Limits()
    for number in range(count):
        made = mutation.make_upload(rng)
        wanted = mutation.read_plainly(made)
        got, fault = await _receive(made, limits, ledger)
        if fault is not None:
            tally.wrong.append(f"{number}: {fault}")
        elif got != wanted:
            tally.wrong.append(f"{number}: accepted {got is not None}, should be {wanted is not None}")
        tally.accepted += got is not None
        tally.refused += got is None
        if number % 1000 == 0:
            await asyncio.sleep(0)
    await settle(ledger, files=0)
    if ledger.acquired["case_files"] != count:
        tally.wrong.append("not every upload took its memory")
    return tally


async def _receive(made: mutation.Upload, limits: Limits, ledger: Ledger) -> tuple[dict[str, bytes] | None, str | None]:
    """What the receiver made of it, and what should never be: an error that is none of ours, or memory beyond what was said."""
    places = lay_out(made.headers)
    observer = cast("CallObserver", Counter())
    context = cast("Context", Stream(made.messages))
    upload = Upload(context, places, limits=limits, observer=observer, files=CaseFiles(ledger))
    declared = places[-1].offset + places[-1].size
    try:
        await upload.receive()
        await upload.watch_the_rest()
        return {place.header.id: os.pread(upload.memory, place.size, place.offset) for place in places}, None
    except VoxplainError:
        return None, None
    except Exception as unexpected:
        return None, f"{type(unexpected).__name__}"
    finally:
        size = os.fstat(upload.memory).st_size
        upload.close()
        if size != declared:
            raise RuntimeError("the memory of an upload grew beyond what was declared")
