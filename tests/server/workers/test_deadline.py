"""A soft deadline that passes in the middle of a method."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
from voxplain.v1 import explain_pb2
from voxplain_server.workers.job import Job
from voxplain_server.workers.pool import WorkerPool

from tests.server.workers.calling import Answer, Counts, job, method, pool_of
from tests.server.workers.conftest import Ward

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE, SKIPPED = explain_pb2.OUTCOME_DEADLINE, explain_pb2.OUTCOME_SKIPPED
LONG = method("occlusion", window=[1], stride=[1])


@pytest.fixture(scope="module")
def counts() -> Counts:
    return Counts()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(ward: Ward, counts: Counts) -> AsyncIterator[WorkerPool]:
    async with pool_of(ward.catalog, counts) as up:
        yield up


async def run_until_late(pool: WorkerPool, asked: Job, *, done: int) -> Answer:
    """Run a job whose deadline passes when a Progress tells of so many evaluations."""
    answer = Answer()
    async for event in pool.run(asked):
        answer.take(event)
        computing = isinstance(event, explain_pb2.Progress) and event.stage == explain_pb2.Progress.STAGE_COMPUTING
        if computing and isinstance(event, explain_pb2.Progress) and event.evaluations_done >= done:
            object.__setattr__(asked, "deadline_s", 0.0)
    return answer


@pytest.mark.parametrize("name", ["smooth-grad", "gradient-shap"])
async def test_a_mean_over_samples_is_delivered_as_far_as_it_came(pool: WorkerPool, ward: Ward, name: str) -> None:
    async with job(ward.bundles["tiny-glioma"], ward.catalog, [method(name, samples=10_000)]) as asked:
        answer = await run_until_late(pool, asked, done=1)
    result = answer.results[name]
    assert (result.outcome, result.reason) == (DEADLINE, "SOFT_DEADLINE")
    assert 0 < result.evaluations_done < result.evaluations_planned == 10_000
    assert result.engine == "torch-cpu"
    assert result.compute_duration.ToNanoseconds() > 0
    assert np.isfinite(answer.map_of(name, "t1")).all()
    assert np.abs(answer.map_of(name, "t1")).max() > 0


async def test_a_gradient_method_without_a_mean_is_skipped_and_tells_what_it_took(pool: WorkerPool, ward: Ward) -> None:
    async with job(ward.bundles["tiny-glioma"], ward.catalog, [method("integrated-gradients", steps=1000)]) as asked:
        answer = await run_until_late(pool, asked, done=1)
    result = answer.results["integrated-gradients"]
    assert (result.outcome, result.reason) == (SKIPPED, "SOFT_DEADLINE")
    assert 0 < result.evaluations_done < result.evaluations_planned
    assert result.engine == "torch-cpu"
    assert result.compute_duration.ToNanoseconds() > 0
    assert not answer.bytes_by_map


async def test_blocks_handed_out_before_the_deadline_are_not_computed_after_it(
    pool: WorkerPool, ward: Ward, counts: Counts
) -> None:
    counts.clear()
    one_block = explain_pb2.Execution(batch_size=1, block_size=1_000_000)
    async with job(ward.bundles["tiny-glioma"], ward.catalog, [LONG, method("gradient")], execution=one_block) as asked:
        answer = await run_until_late(pool, asked, done=0)
    assert [result.outcome for result in answer.results.values()] == [SKIPPED, SKIPPED]
    assert counts.evaluated == 0


async def test_what_was_done_before_the_deadline_is_in_the_map(pool: WorkerPool, ward: Ward) -> None:
    small = explain_pb2.Execution(batch_size=1, block_size=4)
    async with job(ward.bundles["tiny-glioma"], ward.catalog, [LONG], execution=small) as asked:
        answer = await run_until_late(pool, asked, done=1)
    result = answer.results["occlusion"]
    assert result.outcome == DEADLINE
    assert 0 < result.evaluations_done < result.evaluations_planned
    assert np.isnan(answer.map_of("occlusion", "t1")).any()
