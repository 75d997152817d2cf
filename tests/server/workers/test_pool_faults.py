"""Workers that are lost, cancelled, shared and drained."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from voxplain.errors import LimitExceeded, ServerUnavailable
from voxplain.v1 import explain_pb2
from voxplain_server.workers.job import Job
from voxplain_server.workers.pool import WorkerPool

from tests.server.workers.calling import Answer, Counts, job, method, pool_of, run
from tests.server.workers.conftest import Ward

OCCLUSION = method("occlusion", window=[5], stride=[3])
FINE = method("occlusion", window=[5], stride=[2])
OCCLUSION_2 = method("occlusion", "again", window=[5], stride=[3])
LONG = method("occlusion", window=[1], stride=[1])
SMALL_BLOCKS = explain_pb2.Execution(batch_size=4, block_size=4)
ONE_BLOCK = explain_pb2.Execution(batch_size=1, block_size=1_000_000)


async def leave_when_computing(pool: WorkerPool, asked: Job, *, before: Callable[[], None] = lambda: None) -> None:
    """Read a job until blocks are being computed, do something, and leave it."""
    async with contextlib.aclosing(pool.run(asked)) as events:
        async for event in events:
            if isinstance(event, explain_pb2.Progress) and event.stage == explain_pb2.Progress.STAGE_COMPUTING:
                before()
                return


async def test_two_workers_give_the_bytes_of_one_and_both_compute(ward: Ward) -> None:
    bundle = ward.bundles["tiny-glioma"]
    asked_for = [FINE, method("shapley-value-sampling", permutations=2)]
    answers = []
    for workers in (1, 2):
        async with (
            pool_of(ward.catalog, workers=workers) as pool,
            job(bundle, ward.catalog, asked_for, execution=SMALL_BLOCKS) as asked,
        ):
            while len(pool.idle_pids) < workers:
                await asyncio.sleep(0.01)
            before = {pid: cpu_ticks(pid) for pid in pool.worker_pids}
            answers.append(await run(pool, asked))
            busy = [pid for pid in pool.worker_pids if cpu_ticks(pid) > before.get(pid, 0)]
            assert len(busy) == workers
    assert answers[0].bytes_by_map == answers[1].bytes_by_map
    assert len(answers[0].bytes_by_map) == 12


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_same_bytes_come_when_a_worker_is_killed_in_the_middle(ward: Ward, workers: int) -> None:
    bundle, counts = ward.bundles["tiny-glioma"], Counts()
    async with (
        pool_of(ward.catalog, counts, workers=workers) as pool,
        job(bundle, ward.catalog, [FINE, OCCLUSION_2], execution=SMALL_BLOCKS) as asked,
    ):
        whole, cut, killed = await run(pool, asked), Answer(), 0
        async for event in pool.run(asked):
            cut.take(event)
            if isinstance(event, explain_pb2.Progress) and event.evaluations_done > 0 and not killed:
                killed = pool.leading_pids[0]
                os.kill(killed, signal.SIGKILL)
        assert killed
        assert killed not in pool.worker_pids
    assert counts.restarted == ["died"]
    assert cut.bytes_by_map == whole.bytes_by_map
    assert len([event for event in cut.events if isinstance(event, explain_pb2.Prediction)]) == 1


async def test_a_job_that_kills_every_worker_is_given_up(ward: Ward) -> None:
    counts = Counts()
    async with pool_of(ward.catalog, counts) as pool:
        async with job(ward.bundles["tiny-glioma"], ward.catalog, [LONG], execution=ONE_BLOCK) as asked:
            with pytest.raises(ServerUnavailable) as given_up:
                async for event in pool.run(asked):
                    if isinstance(event, explain_pb2.Progress) and event.stage == explain_pb2.Progress.STAGE_COMPUTING:
                        for pid in pool.leading_pids:
                            with contextlib.suppress(ProcessLookupError):
                                os.kill(pid, signal.SIGKILL)
        assert given_up.value.reason == "WORKER_LOST"
        async with job(ward.bundles["tiny-glioma"], ward.catalog, [OCCLUSION]) as asked:
            assert (await run(pool, asked)).results["occlusion"].outcome == explain_pb2.OUTCOME_COMPLETED
    assert counts.restarted == ["died", "died"]


async def test_a_cancelled_job_leaves_its_worker_to_the_next(ward: Ward) -> None:
    counts = Counts()
    async with pool_of(ward.catalog, counts, cancel_grace_s=60.0) as pool:
        pids = pool.worker_pids
        async with job(ward.bundles["tiny-glioma"], ward.catalog, [LONG], execution=ONE_BLOCK) as asked:
            await leave_when_computing(pool, asked)
        async with job(ward.bundles["tiny-glioma"], ward.catalog, [OCCLUSION]) as asked:
            await run(pool, asked)
        assert pool.worker_pids == pids
    # The one block was not finished, or it would have been counted.
    assert (counts.evaluated, len(counts.stopped), counts.restarted) == (192, 1, [])


async def test_a_worker_that_does_not_stop_is_replaced(ward: Ward) -> None:
    counts = Counts()
    async with pool_of(ward.catalog, counts, cancel_grace_s=0.2) as pool:
        (stuck,) = pool.worker_pids
        async with job(ward.bundles["tiny-glioma"], ward.catalog, [LONG], execution=ONE_BLOCK) as asked:
            await leave_when_computing(pool, asked, before=lambda: os.kill(stuck, signal.SIGSTOP))
        async with job(ward.bundles["tiny-glioma"], ward.catalog, [OCCLUSION]) as asked:
            await run(pool, asked)
        assert stuck not in pool.worker_pids
    assert counts.restarted == ["cancel"]
    assert not Path(f"/proc/{stuck}").exists()


async def test_a_silent_worker_is_replaced_and_its_job_goes_on(ward: Ward) -> None:
    counts = Counts()
    async with pool_of(ward.catalog, counts, silence_s=3.0) as pool:
        (stuck,) = pool.worker_pids
        async with job(ward.bundles["tiny-glioma"], ward.catalog, [OCCLUSION], execution=SMALL_BLOCKS) as asked:
            answer = Answer()
            async for event in pool.run(asked):
                answer.take(event)
                if isinstance(event, explain_pb2.Prediction):
                    os.kill(stuck, signal.SIGSTOP)
    assert answer.results["occlusion"].outcome == explain_pb2.OUTCOME_COMPLETED
    assert counts.restarted == ["silent"]


async def test_jobs_wait_in_turn_and_too_many_are_refused(ward: Ward) -> None:
    bundle = ward.bundles["tiny-glioma"]
    async with pool_of(ward.catalog, queue_limit=1) as pool, job(bundle, ward.catalog, [OCCLUSION]) as asked:
        first, second = asyncio.create_task(run(pool, asked)), asyncio.create_task(run(pool, asked))
        await asyncio.sleep(0)
        assert pool.queue_length == 1
        with pytest.raises(LimitExceeded) as refused:
            await run(pool, asked)
        assert (refused.value.reason, refused.value.retry_after_s) == ("QUEUE_FULL", 5.0)
        answers = [await first, await second]
    queued = [event for event in answers[1].events if isinstance(event, explain_pb2.Progress)]
    assert queued[0].stage == explain_pb2.Progress.STAGE_QUEUED
    assert answers[0].bytes_by_map == answers[1].bytes_by_map


async def test_a_job_that_leaves_the_queue_takes_no_worker(ward: Ward) -> None:
    bundle = ward.bundles["tiny-glioma"]
    async with pool_of(ward.catalog) as pool, job(bundle, ward.catalog, [OCCLUSION]) as asked:
        first = asyncio.create_task(run(pool, asked))
        await asyncio.sleep(0)
        waiting = pool.run(asked)
        assert (await anext(waiting)).stage == explain_pb2.Progress.STAGE_QUEUED  # type: ignore[union-attr]
        await waiting.aclose()
        assert pool.queue_length == 0
        await first
        assert (await run(pool, asked)).results


async def test_draining_ends_running_jobs_with_a_checkpoint_that_goes_on(ward: Ward) -> None:
    bundle, key = ward.bundles["tiny-glioma"], b"k" * 32
    async with job(bundle, ward.catalog, [FINE, OCCLUSION_2], execution=SMALL_BLOCKS) as asked:
        async with pool_of(ward.catalog, checkpoint_key=key) as pool:
            answer, draining = Answer(), None
            async for event in pool.run(asked):
                answer.take(event)
                if draining is None and isinstance(event, explain_pb2.Progress) and event.evaluations_done > 0:
                    draining = asyncio.create_task(pool.drain(0.0))
            assert draining is not None
            await draining
            with pytest.raises(ServerUnavailable) as refused:
                await run(pool, asked)
            assert refused.value.reason == "SHUTTING_DOWN"
        drained = answer.results["occlusion"]
        assert drained.outcome == explain_pb2.OUTCOME_DRAINED
        assert 0 < drained.evaluations_done < drained.evaluations_planned
        again = answer.results["again"]
        assert (again.outcome, again.evaluations_done) == (explain_pb2.OUTCOME_DRAINED, 0)
        asked.spec.checkpoint = answer.checkpoints[-1]
        counts = Counts()
        async with pool_of(ward.catalog, counts, checkpoint_key=key) as pool:
            resumed = await run(pool, asked)
            asked.spec.ClearField("checkpoint")
            whole = await run(pool, asked)
    assert counts.saved_by["checkpoint"] == drained.evaluations_done
    assert resumed.bytes_by_map == whole.bytes_by_map


async def test_closing_the_pool_ends_every_process(ward: Ward) -> None:
    async with pool_of(ward.catalog, workers=2) as pool:
        pids = pool.worker_pids
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def cpu_ticks(pid: int) -> int:
    """Processor time that a process has used, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])
