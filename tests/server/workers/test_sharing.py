"""Equal coalitions of a call are evaluated once, and nobody can tell by the bytes who came first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
from voxplain.v1 import explain_pb2, method_pb2
from voxplain_server.workers.pool import WorkerPool

from tests.server.workers.calling import Answer, Counts, job, method, pool_of, run
from tests.server.workers.conftest import Ward

pytestmark = pytest.mark.asyncio(loop_scope="module")

GRID = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[7]), shared=False)
WHOLE = method_pb2.FeatureGrouping(whole_modality=method_pb2.WholeModalityGrouping())
ABLATION = method("feature-ablation", grouping=GRID)
WALKS = method("shapley-value-sampling", grouping=GRID, permutations=4)
KERNEL = method("kernel-shap", grouping=GRID, samples=60)
LIME = method("lime", grouping=GRID, samples=40)
MODALITIES = method("modality-shapley")
FAMILY = [ABLATION, WALKS, KERNEL, LIME, MODALITIES]
DENSE = explain_pb2.Execution(batch_size=4, block_size=8)
INCREMENTAL = explain_pb2.Execution(engine="incremental-cpu", batch_size=4, block_size=8)
SHARED, REPEATED = explain_pb2.Saving.REASON_SHARED, explain_pb2.Saving.REASON_REPEATED
UNCHANGED = explain_pb2.Saving.REASON_UNCHANGED


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def counts() -> Counts:
    return Counts()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(ward: Ward, counts: Counts) -> AsyncIterator[WorkerPool]:
    async with pool_of(ward.catalog, counts, checkpoint_key=b"k" * 32) as up:
        yield up


def saved(plan: explain_pb2.MethodPlan | explain_pb2.MethodResult, *reasons: explain_pb2.Saving.Reason.ValueType) -> int:
    return sum(each.evaluations for each in plan.savings if not reasons or each.reason in reasons)


async def test_evaluations_are_saved_as_the_record_predicts(pool: WorkerPool, ward: Ward, counts: Counts) -> None:
    counts.clear()
    async with job(ward.bundles["tiny-glioma"], ward.catalog, FAMILY, execution=DENSE) as asked:
        answer = await run(pool, asked)
    plans = {plan.method_key: plan for plan in answer.record.prediction.plans}
    for key, result in answer.results.items():
        assert result.outcome == explain_pb2.OUTCOME_COMPLETED
        assert list(result.savings) == list(plans[key].savings)
        assert result.evaluations_saved == saved(result)
        assert result.evaluations_done == result.evaluations_planned == plans[key].evaluations
    # Every walk ends with the case, before that with one feature absent, and begins with the same baseline.
    walks, features = plans["shapley-value-sampling"], plans["feature-ablation"].features
    assert walks.evaluations == 1 + 4 * features
    assert saved(walks, UNCHANGED) == 4
    assert saved(walks, SHARED) == 4
    by_key = {each.method_key: each.evaluations for each in plans["kernel-shap"].savings if each.reason == SHARED}
    assert by_key["shapley-value-sampling"] >= 1
    assert by_key["feature-ablation"] >= 1
    # Nothing but the coalitions of one to three modalities out of four is left: fourteen.
    assert plans["modality-shapley"].evaluations == 16
    assert saved(plans["modality-shapley"], SHARED) == 1
    assert counts.evaluated == sum(plan.evaluations - saved(plan) for plan in plans.values())
    for name, reason in (("unchanged", UNCHANGED), ("repeated", REPEATED), ("shared", SHARED)):
        assert counts.saved_by[name] == sum(saved(plan, reason) for plan in plans.values())


async def test_a_map_is_the_same_with_and_without_others_to_share_with(pool: WorkerPool, ward: Ward) -> None:
    bundle = ward.bundles["tiny-glioma"]
    async with job(bundle, ward.catalog, FAMILY, execution=DENSE) as asked:
        together = await run(pool, asked)
    for each in (WALKS, KERNEL):
        async with job(bundle, ward.catalog, [each], execution=DENSE) as asked:
            alone = await run(pool, asked)
        assert alone.bytes_by_map
        assert {name: together.bytes_by_map[name] for name in alone.bytes_by_map} == alone.bytes_by_map


@pytest.mark.parametrize("execution", [DENSE, INCREMENTAL], ids=["dense", "incremental"])
async def test_workers_and_interruptions_do_not_move_a_byte(
    pool: WorkerPool, ward: Ward, execution: explain_pb2.Execution
) -> None:
    async with job(ward.bundles["tiny-glioma"], ward.catalog, FAMILY, execution=execution) as asked:
        whole = await run(pool, asked)
        async with pool_of(ward.catalog, workers=3) as many:
            shared_out = await run(many, asked)
        async with pool_of(ward.catalog, checkpoint_key=b"k" * 32) as drained:
            part = await _run_until_drained(drained, asked, "kernel-shap")
        assert part.results["lime"].outcome == explain_pb2.OUTCOME_DRAINED
        asked.spec.checkpoint = part.checkpoints[-1]
        resumed = await run(pool, asked)
    assert whole.record.execution.engine == (execution.engine or "onnxruntime-cpu")
    assert shared_out.bytes_by_map == whole.bytes_by_map
    assert resumed.bytes_by_map == whole.bytes_by_map


async def test_what_a_failed_method_was_to_give_is_evaluated_all_the_same(pool: WorkerPool, ward: Ward, counts: Counts) -> None:
    ablation = method("feature-ablation", grouping=WHOLE)
    bundle = ward.bundles["tiny-fixed"]
    counts.clear()
    async with job(bundle, ward.catalog, [MODALITIES, ablation]) as asked:
        answer = await run(pool, asked)
    failed, stands = answer.results["modality-shapley"], answer.results["feature-ablation"]
    assert (failed.outcome, failed.reason) == (explain_pb2.OUTCOME_FAILED, "SCORE_NOT_FINITE")
    assert stands.outcome == explain_pb2.OUTCOME_COMPLETED
    plan = answer.record.prediction.plans[1]
    assert (saved(plan, SHARED), saved(stands, SHARED)) == (2, 0)
    assert counts.evaluated == 2
    async with job(bundle, ward.catalog, [ablation]) as asked:
        alone = await run(pool, asked)
    assert np.isfinite(answer.map_of("feature-ablation", "t1")).all()
    assert answer.bytes_by_map == alone.bytes_by_map


async def _run_until_drained(pool: WorkerPool, asked: object, key: str) -> Answer:
    """Drain when a method has begun."""
    answer, draining = Answer(), None
    async for event in pool.run(asked):  # type: ignore[arg-type]
        answer.take(event)
        if draining is None and isinstance(event, explain_pb2.Progress) and event.method_key == key:
            draining = asyncio.create_task(pool.drain(0.0))
    assert draining is not None
    await draining
    return answer
