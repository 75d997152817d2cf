"""The row of the named delay points: a front over a real pool in this process."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from voxplain_server.workers.checking import check_models
from voxplain_server.workers.ledger import Ledger
from voxplain_server.workers.pool import WorkerPool
from voxplain_server.workers.pool_settings import PoolSettings

from tests.bundles import early_fusion_classes
from tests.oracle import memory_files
from tests.server.service.front import running_front
from tests.stress.delay_points import POINTS, leave_at, serve_one
from tests.stress.row import Row, Scale

TIMES = 20


def leave_at_points(scale: Scale) -> list[Row]:
    """Let clients leave at each point again and again."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_leave(Path(folder), scale.of(TIMES, least=2)))


async def _leave(models: Path, times: int) -> list[Row]:
    bundle, began = early_fusion_classes(models), time.monotonic()
    settings = PoolSettings(engine="onnxruntime", preload=False, progress_s=0.01)
    catalog, ledger, files = await check_models(models, settings=settings), Ledger(), memory_files()
    pool = WorkerPool(settings=settings, catalog=catalog, ledger=ledger)
    await pool.start()
    try:
        async with running_front(over=pool, known=catalog, ledger=ledger) as front:
            for point in POINTS:
                for _ in range(times):
                    await leave_at(point, front, pool, bundle, files=files)
                assert (await serve_one(front, bundle))[-1] == "summary"
    finally:
        await pool.close()
    return [
        Row(
            what="clients that leave at named delay points",
            count=f"{len(POINTS)} points x {times}",
            goal="no leak: books even and no memory file open after each, and the next call served",
            figure=f"0 leaks ({time.monotonic() - began:.0f} s)",
            passed=ledger.left == {},
        )
    ]
