"""Workers that come to nothing: what ended them is logged by its type, and the compute is known to fail."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from voxplain_server.workers.pool import WorkerPool

from tests.server.workers.calling import Counts, method, pool_of, run
from tests.server.workers.calling import job as job_of
from tests.server.workers.conftest import Ward


@pytest.fixture
def broken_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Workers find a captum that cannot be imported, until the folder's module is taken away."""
    package = tmp_path / "captum"
    package.mkdir()
    module = package / "__init__.py"
    module.write_text("raise ImportError('libjane-doe.so.1: cannot open shared object file')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return module


async def until(condition: object, seconds: float = 60.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def test_a_preload_that_fails_is_logged_by_its_type_and_makes_the_compute_fail(
    ward: Ward, broken_import: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counts = Counts()
    async with pool_of(ward.catalog, counts, preload=True, settled_s=30.0) as pool:
        began_at = time.monotonic()
        await until(lambda: counts.compute and counts.compute[-1][1])
        assert time.monotonic() - began_at > 1.0  # The third start waited.
        assert counts.restarted[:3] == ["died"] * 3
        assert not pool.idle_pids
    uncaught = [vars(each)["fields"] for each in caplog.records if each.msg == "worker_uncaught"]
    assert len(uncaught) >= 3
    assert {each["kind"] for each in uncaught} == {"ImportError"}
    assert "_preload" in uncaught[0]["where"]
    assert "jane" not in caplog.text
    assert "jane" not in str([vars(each) for each in caplog.records])


async def test_the_compute_recovers_when_a_worker_stays_up(ward: Ward, broken_import: Path) -> None:
    counts = Counts()
    async with pool_of(ward.catalog, counts, preload=True, settled_s=1.0) as pool:
        # A worker that died so quickly had not settled, whatever this machine's load: the import fails at once.
        await until(lambda: counts.compute and counts.compute[-1][1])
        broken_import.write_text("")
        (broken_import.parent / "attr.py").write_text("")
        await until(lambda: counts.compute[-1] == (1, False))
        assert len(pool.idle_pids) == 1


async def kill_leading(pool: WorkerPool) -> None:
    for pid in pool.leading_pids:
        os.kill(pid, signal.SIGKILL)


async def test_a_case_that_kills_its_workers_does_not_make_the_compute_fail(ward: Ward) -> None:
    counts = Counts()
    slow = method("occlusion", window=[1], stride=[1])
    async with pool_of(ward.catalog, counts, settled_s=300.0) as pool:
        for _ in range(2):
            async with job_of(ward.bundles["tiny-glioma"], ward.catalog, [slow]) as asked:
                running = asyncio.create_task(run(pool, asked))
                while not running.done():
                    await kill_leading(pool)
                    await asyncio.sleep(0.02)
                assert running.exception() is not None
    assert len(counts.restarted) >= 4
    assert not any(failing for _, failing in counts.compute)


async def test_waits_and_batches_are_told(ward: Ward) -> None:
    counts = Counts()
    async with (
        pool_of(ward.catalog, counts) as pool,
        job_of(ward.bundles["tiny-glioma"], ward.catalog, [method("occlusion", window=[5], stride=[3])]) as asked,
    ):
        await run(pool, asked)
    assert len(counts.waited) == 1
    assert sum(size * passes for size, passes in counts.passes.items()) == counts.evaluated > 0
