"""Jobs through real processes: what comes back, and in which order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from voxplain.errors import CheckpointRefused, InvalidTensor, VoxplainError
from voxplain.v1 import explain_pb2, method_pb2
from voxplain_server.methods import all_methods
from voxplain_server.workers.pool import WorkerPool

from tests.server.workers.calling import Counts, job, method, pool_of, run
from tests.server.workers.conftest import Ward

pytestmark = pytest.mark.asyncio(loop_scope="module")

OCCLUSION = method("occlusion", window=[5], stride=[3])
SMALL_BLOCKS = explain_pb2.Execution(batch_size=4, block_size=8)
OFTEN = Duration(nanos=1)
COMPLETED, SKIPPED = explain_pb2.OUTCOME_COMPLETED, explain_pb2.OUTCOME_SKIPPED


@pytest.fixture(scope="module")
def counts() -> Counts:
    return Counts()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(ward: Ward, counts: Counts) -> AsyncIterator[WorkerPool]:
    """One worker, shared: a test that harms it takes a pool of its own."""
    async with pool_of(ward.catalog, counts) as up:
        yield up


async def test_gradient_and_occlusion_come_back_in_the_order_asked(pool: WorkerPool, ward: Ward) -> None:
    bundle = ward.bundles["tiny-glioma"]
    async with job(bundle, ward.catalog, [OCCLUSION, method("gradient")]) as asked:
        answer = await run(pool, asked)
    assert list(answer.results) == ["occlusion", "gradient"]
    assert all(result.outcome == COMPLETED for result in answer.results.values())
    for key in answer.results:
        for modality in bundle.modalities:
            values = answer.map_of(key, modality)
            assert values.size == 12 * 14 * 10
            assert np.isfinite(values).all()
            assert np.abs(values).max() > 0
    kinds = [type(event).__name__ for event in answer.events if not isinstance(event, explain_pb2.Progress)]
    maps = ["MapReady"] * 4
    assert kinds == ["Prediction", *maps, "MethodResult", *maps, "MethodResult", "ExplanationRecord"]


async def test_the_record_tells_what_is_needed_to_do_it_again(pool: WorkerPool, ward: Ward) -> None:
    bundle = ward.bundles["tiny-glioma"]
    async with job(bundle, ward.catalog, [OCCLUSION]) as asked:
        record = (await run(pool, asked)).record
    entry = ward.catalog.find("tiny-glioma")
    assert (record.model, record.model_digest) == ("tiny-glioma", entry.model.digest)
    assert record.execution == explain_pb2.Execution(
        engine="onnxruntime-cpu", threads_per_worker=1, batch_size=16, block_size=256
    )
    assert [digest.tensor.modality for digest in record.inputs] == list(bundle.modalities)
    assert len(record.maps) == 4
    assert record.seed == 7
    assert record.target.class_ref.name in bundle.classes
    assert record.results[0].transfer_duration.ToNanoseconds() > 0
    assert "numpy" in record.package_versions
    async with job(bundle, ward.catalog, [OCCLUSION], execution=record.execution) as asked:
        assert list((await run(pool, asked)).record.maps) == list(record.maps)


async def test_the_prediction_comes_before_the_plans_and_the_record_has_both(pool: WorkerPool, ward: Ward) -> None:
    async with job(ward.bundles["tiny-glioma"], ward.catalog, [OCCLUSION, method("gradient")]) as asked:
        answer = await run(pool, asked)
    early, final = answer.prediction, answer.record.prediction
    assert [plan.blocks for plan in early.plans] == [0, 0]
    assert [plan.blocks for plan in final.plans] == [2, 0]
    assert [plan.evaluations for plan in early.plans] == [plan.evaluations for plan in final.plans] == [192, 1]
    assert [plan.engine for plan in early.plans] == ["onnxruntime-cpu", "torch-cpu"]
    assert all(plan.estimated_duration.ToNanoseconds() > 0 for plan in early.plans)
    del early.plans[:], final.plans[:]
    assert early == final


async def test_a_result_names_what_its_method_takes_for_granted(pool: WorkerPool, ward: Ward) -> None:
    async with job(ward.bundles["tiny-glioma"], ward.catalog, [OCCLUSION, method("gradient")]) as asked:
        answer = await run(pool, asked)
    for key, result in answer.results.items():
        told = [(each.code, each.description, each.holds) for each in result.assumptions]
        words = all_methods()[key].assumptions
        assert told == [(f"ASSUMPTION_{number}", each, True) for number, each in enumerate(words, 1)]


async def test_a_method_that_cannot_run_is_told_and_the_others_stand(pool: WorkerPool, ward: Ward) -> None:
    bundle = ward.bundles["tiny-glioma"]
    by_labels = method("feature-ablation", grouping=method_pb2.FeatureGrouping(label_map=method_pb2.LabelMapGrouping()))
    async with job(bundle, ward.catalog, [by_labels, method("feature-permutation"), method("gradient")]) as asked:
        answer = await run(pool, asked)
    ablation, permutation = answer.results["feature-ablation"], answer.results["feature-permutation"]
    assert (ablation.outcome, ablation.reason) == (SKIPPED, "LABELS_NOT_SENT")
    assert (permutation.outcome, permutation.reason) == (SKIPPED, "NO_DONORS")
    assert [plan.refused_reason for plan in answer.record.prediction.plans] == ["LABELS_NOT_SENT", "NO_DONORS", ""]
    assert answer.results["gradient"].outcome == COMPLETED
    assert {key for key, _, _ in answer.bytes_by_map} == {"gradient"}


async def test_a_method_that_fails_half_way_leaves_the_others_whole(pool: WorkerPool, ward: Ward) -> None:
    async with job(ward.bundles["tiny-fixed"], ward.catalog, [method("modality-shapley"), OCCLUSION]) as asked:
        answer = await run(pool, asked)
    failed = answer.results["modality-shapley"]
    assert (failed.outcome, failed.reason) == (explain_pb2.OUTCOME_FAILED, "SCORE_NOT_FINITE")
    assert answer.results["occlusion"].outcome == COMPLETED
    assert np.isfinite(answer.map_of("occlusion", "t1")).all()
    assert [result.method_key for result in answer.record.results] == ["modality-shapley", "occlusion"]


async def test_a_tensor_that_holds_nan_fails_its_job_and_no_other(pool: WorkerPool, ward: Ward) -> None:
    bundle = ward.bundles["tiny-glioma"]
    volumes = bundle.volumes()
    volumes["t2"][3, 4, 5] = np.nan
    async with job(bundle, ward.catalog, [OCCLUSION], volumes=volumes) as asked:
        with pytest.raises(VoxplainError) as refused:
            await run(pool, asked)
    assert isinstance(refused.value, InvalidTensor)
    assert (refused.value.reason, refused.value.field) == ("NOT_FINITE", "tensors[2]")
    async with job(bundle, ward.catalog, [method("gradient")]) as asked:
        assert (await run(pool, asked)).results["gradient"].outcome == COMPLETED


async def test_a_budget_stops_at_whole_blocks_and_the_map_says_so(pool: WorkerPool, ward: Ward) -> None:
    budget = explain_pb2.Budget(max_evaluations=21)
    asked_for = [OCCLUSION, method("integrated-gradients")]
    async with job(ward.bundles["tiny-glioma"], ward.catalog, asked_for, budget=budget, execution=SMALL_BLOCKS) as asked:
        answer = await run(pool, asked)
    result = answer.results["occlusion"]
    assert (result.outcome, result.reason) == (explain_pb2.OUTCOME_BUDGET_SPENT, "BUDGET_SPENT")
    assert (result.evaluations_done, result.evaluations_planned) == (16, 192)
    assert np.isnan(answer.map_of("occlusion", "t1")).any()
    assert answer.map_of("occlusion", "t1", "COVERAGE").max() <= 1
    steps = answer.results["integrated-gradients"]
    assert (steps.outcome, steps.reason) == (SKIPPED, "BUDGET_TOO_SMALL")


async def test_a_soft_deadline_that_has_passed_skips_what_has_not_begun(pool: WorkerPool, ward: Ward) -> None:
    async with job(ward.bundles["tiny-glioma"], ward.catalog, [method("gradient"), OCCLUSION], deadline_s=0.0) as asked:
        answer = await run(pool, asked)
    assert {result.reason for result in answer.results.values()} == {"SOFT_DEADLINE"}
    assert all(result.outcome == SKIPPED for result in answer.results.values())
    assert answer.prediction.class_scores


async def test_a_target_error_stops_at_a_place_fixed_by_the_plan(pool: WorkerPool, ward: Ward) -> None:
    shapley = method("shapley-value-sampling", permutations=40, grouping=whole_modalities())
    budget = explain_pb2.Budget(target_standard_error=0.9)
    done = []
    for _ in range(2):
        async with job(ward.bundles["tiny-glioma"], ward.catalog, [shapley], budget=budget, execution=SMALL_BLOCKS) as asked:
            answer = await run(pool, asked)
        result = answer.results["shapley-value-sampling"]
        assert result.outcome == explain_pb2.OUTCOME_TARGET_ERROR_REACHED
        assert result.standard_error <= 0.9
        done.append((result.evaluations_done, answer.record.maps[0].sha256))
    assert done[0] == done[1]
    assert done[0][0] < result.evaluations_planned


async def test_snapshots_of_features_come_as_values_by_label(pool: WorkerPool, ward: Ward) -> None:
    shapley = method("shapley-value-sampling", permutations=6)
    async with job(ward.bundles["tiny-glioma"], ward.catalog, [shapley], snapshot_interval=OFTEN) as asked:
        answer = await run(pool, asked)
    labels = {header.id: (header, content) for header, content in answer.snapshots if not header.labels_id}
    values = [(header, content) for header, content in answer.snapshots if header.labels_id]
    assert values
    for header, content in values:
        announced, label_bytes = labels[header.labels_id]
        assert announced.quantity == explain_pb2.QUANTITY_LABELS
        assert announced.modalities == header.modalities
        painted = np.frombuffer(content, "<f4")[np.frombuffer(label_bytes, "<i4")]
        assert painted.size == 12 * 14 * 10
    assert len(labels) == 4


async def test_voxel_snapshots_come_before_the_final_map_and_hold_nan_where_nothing_is_known(
    pool: WorkerPool, ward: Ward
) -> None:
    bundle = ward.bundles["tiny-glioma"]
    tiny_blocks = explain_pb2.Execution(batch_size=1, block_size=2)
    async with job(bundle, ward.catalog, [OCCLUSION], snapshot_interval=OFTEN, execution=tiny_blocks) as asked:
        answer = await run(pool, asked)
    early = [content for header, content in answer.snapshots if header.quantity == explain_pb2.QUANTITY_ATTRIBUTION]
    assert early
    assert np.isnan(np.frombuffer(early[0], "<f4")).any()
    assert np.isfinite(answer.map_of("occlusion", "t1")).all()


@pytest.mark.parametrize(
    ("asked_for", "first"),
    [(OCCLUSION, 2), (method("feature-ablation"), 2), (method("kernel-shap", samples=90), 2), (method("lime"), 2)],
    ids=lambda given: given.WhichOneof("method") if isinstance(given, method_pb2.Method) else str(given),
)
async def test_the_first_snapshot_waits_for_the_beginning_of_the_first_block_and_for_no_block_in_advance(
    pool: WorkerPool, ward: Ward, asked_for: method_pb2.Method, first: int
) -> None:
    blocks = explain_pb2.Execution(batch_size=2, block_size=64)
    async with job(ward.bundles["tiny-glioma"], ward.catalog, [asked_for], snapshot_interval=OFTEN, execution=blocks) as asked:
        answer = await run(pool, asked)
    told = [header.evaluations_done for header, _ in answer.snapshots if header.quantity == explain_pb2.QUANTITY_ATTRIBUTION]
    assert told[0] == first


async def test_the_first_snapshot_of_a_walk_comes_after_one_walk(pool: WorkerPool, ward: Ward) -> None:
    shapley = method("shapley-value-sampling", permutations=6)
    blocks = explain_pb2.Execution(batch_size=2, block_size=1024)
    async with job(ward.bundles["tiny-glioma"], ward.catalog, [shapley], snapshot_interval=OFTEN, execution=blocks) as asked:
        answer = await run(pool, asked)
    (plan,) = answer.record.prediction.plans
    told = [header.evaluations_done for header, _ in answer.snapshots if header.quantity == explain_pb2.QUANTITY_ATTRIBUTION]
    assert told[0] == 1 + plan.features
    assert plan.blocks == 3


async def test_the_same_bytes_come_when_the_job_goes_on_from_a_checkpoint(pool: WorkerPool, ward: Ward, counts: Counts) -> None:
    bundle = ward.bundles["tiny-glioma"]
    async with job(bundle, ward.catalog, [OCCLUSION], execution=SMALL_BLOCKS) as asked:
        whole = await run(pool, asked)
    part = next(checkpoint for checkpoint in whole.checkpoints if checkpoint)
    counts.clear()
    async with job(bundle, ward.catalog, [OCCLUSION], execution=SMALL_BLOCKS, checkpoint=part) as asked:
        resumed = await run(pool, asked)
    assert resumed.bytes_by_map == whole.bytes_by_map
    known = counts.saved_by["checkpoint"]
    assert known > 0
    assert counts.evaluated + counts.saved_by["unchanged"] == 192 - known


@pytest.mark.parametrize("change", ["seed", "voxel", "nonsense"])
async def test_a_checkpoint_of_something_else_is_refused(pool: WorkerPool, ward: Ward, change: str) -> None:
    bundle = ward.bundles["tiny-glioma"]
    async with job(bundle, ward.catalog, [OCCLUSION], execution=SMALL_BLOCKS) as asked:
        checkpoint = (await run(pool, asked)).checkpoints[-1]
    volumes = bundle.volumes()
    if change == "voxel":
        volumes["t1"][6, 7, 5] += 1
    if change == "nonsense":
        checkpoint = b"x" * 100
    asked_for = [OCCLUSION, method("gradient")] if change == "seed" else [OCCLUSION]
    async with job(bundle, ward.catalog, asked_for, volumes=volumes, execution=SMALL_BLOCKS, checkpoint=checkpoint) as asked:
        with pytest.raises(CheckpointRefused) as refused:
            await run(pool, asked)
    assert refused.value.reason == "CHECKPOINT_INVALID"


@pytest.mark.parametrize("name", ["tiny-fixed", "tiny-two-views", "tiny-segmentation", "tiny-knee"])
async def test_every_kind_of_model_is_explained(pool: WorkerPool, ward: Ward, name: str) -> None:
    bundle = ward.bundles[name]
    target = explain_pb2.Target()
    if name == "tiny-segmentation":
        target.class_ref.name = "tumour"
    async with job(bundle, ward.catalog, [method("gradient"), method("occlusion")], target=target) as asked:
        answer = await run(pool, asked)
    assert [result.outcome for result in answer.results.values()] == [COMPLETED, COMPLETED]
    for modality, shape in bundle.shapes.items():
        assert answer.map_of("gradient", modality).size == np.prod(shape)


async def test_another_batch_size_agrees_within_the_bound_for_perturbations(pool: WorkerPool, ward: Ward) -> None:
    bundle = ward.bundles["tiny-glioma"]
    maps = []
    for batch in (1, 7):
        execution = explain_pb2.Execution(batch_size=batch, block_size=40)
        async with job(bundle, ward.catalog, [OCCLUSION], execution=execution) as asked:
            answer = await run(pool, asked)
        maps.append(np.concatenate([answer.map_of("occlusion", name) for name in bundle.modalities]))
    floor = 32 * np.spacing(np.float32(abs(answer.prediction.score)))
    assert np.abs(maps[0] - maps[1]).max() <= max(5e-4 * np.abs(maps[0]).max(), floor)


async def test_nothing_stays_open_after_a_job(pool: WorkerPool, ward: Ward) -> None:
    bundle = ward.bundles["tiny-glioma"]
    places = [Path("/proc/self/fd"), Path(f"/proc/{pool.worker_pids[0]}/fd")]

    async def once() -> list[int]:
        asked_for = [method("gradient"), OCCLUSION]
        async with job(bundle, ward.catalog, asked_for, snapshot_interval=OFTEN, execution=SMALL_BLOCKS) as asked:
            await run(pool, asked)
        # The next job is opened only when the worker has closed this one.
        async with job(bundle, ward.catalog, [method("gradient")]) as asked:
            await run(pool, asked)
        return [len(list(place.iterdir())) for place in places]

    first = await once()
    for _ in range(4):
        last = await once()
    assert last == first


def whole_modalities() -> method_pb2.FeatureGrouping:
    return method_pb2.FeatureGrouping(whole_modality=method_pb2.WholeModalityGrouping())
