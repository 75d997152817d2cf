"""Clients that leave at named points of a call: nothing is held afterwards, and the next call is served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from voxplain_server.service.case_files import CaseFiles
from voxplain_server.workers.ledger import Ledger
from voxplain_server.workers.pool import WorkerPool

from tests.bundles import TinyBundle
from tests.oracle import memory_files
from tests.server.service.front import Front, running_front
from tests.server.workers.calling import pool_of
from tests.server.workers.conftest import Ward
from tests.stress.delay_points import POINTS, DelayPoint, leave_at, serve_one

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, slots=True)
class Service:
    """A front over a real pool of one worker, and what rests on their books."""

    front: Front
    pool: WorkerPool
    bundle: TinyBundle
    files: int
    buffer: CaseFiles


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(ward: Ward) -> AsyncIterator[Service]:
    ledger, files = Ledger(), memory_files()
    buffer = CaseFiles(ledger, smallest=1)
    await buffer.keep(1 << 20)
    async with (
        pool_of(ward.catalog, ledger=ledger) as pool,
        running_front(over=pool, known=ward.catalog, ledger=ledger, files=buffer) as front,
    ):
        yield Service(front, pool, ward.bundles["tiny-glioma"], files, buffer)
    await buffer.close()


async def ready(buffer: CaseFiles) -> None:
    """The upload buffer comes back from the worker that read it, whatever became of the call."""
    async with asyncio.timeout(20):
        while not buffer.is_ready:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("point", POINTS, ids=[point.name for point in POINTS])
async def test_a_client_that_leaves_there_leaves_nothing_behind(service: Service, point: DelayPoint) -> None:
    for _ in range(2):
        await ready(service.buffer)
        await leave_at(point, service.front, service.pool, service.bundle, files=service.files)
    assert (await serve_one(service.front, service.bundle))[-1] == "summary"
    assert service.front.ledger.acquired["handlers"] >= 3
    await ready(service.buffer)
