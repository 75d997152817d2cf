"""A place in the queue of the pool."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from voxplain_server.workers.call import Call
from voxplain_server.workers.catalog import CatalogEntry
from voxplain_server.workers.worker import Worker


@dataclass(slots=True, eq=False)
class QueuePlace:
    """Whoever waits for a worker.

    Attributes:
        entry: model that will be needed.
        worker: set when one is free.
        call: the call that lost its lead; None for a new one, and for an inference.
    """

    entry: CatalogEntry
    worker: asyncio.Future[Worker]
    call: Call | None = None
