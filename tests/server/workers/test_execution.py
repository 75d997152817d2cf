"""How the work is cut."""

from __future__ import annotations

from dataclasses import replace

import pytest
from google.protobuf.duration_pb2 import Duration
from voxplain.v1 import explain_pb2, tensor_pb2
from voxplain_server.workers.execution import INCREMENTAL_BLOCK, block_of_plan, differences, resolve_execution

from tests.fakes import fake_model


def resolved(
    edge: int, *, modalities: int = 4, batched: bool = True, spec: explain_pb2.ExplainSpec | None = None
) -> tuple[int, int]:
    model = replace(fake_model([(edge, edge, edge)] * modalities), batched=batched)
    execution = resolve_execution(model, spec or explain_pb2.ExplainSpec(), engine="onnxruntime-cpu", threads=2)
    return execution.batch_size, execution.block_size


@pytest.mark.parametrize(("edge", "batch", "block"), [(16, 16, 256), (32, 16, 256), (64, 4, 64), (128, 1, 8), (256, 1, 1)])
def test_batches_and_blocks_shrink_as_volumes_grow(edge: int, batch: int, block: int) -> None:
    assert resolved(edge) == (batch, block)


def test_a_model_with_a_fixed_batch_is_evaluated_one_by_one() -> None:
    assert resolved(16, batched=False)[0] == 1
    pinned = explain_pb2.ExplainSpec(execution=explain_pb2.Execution(batch_size=8))
    assert resolved(16, batched=False, spec=pinned)[0] == 1


def test_pins_win() -> None:
    pinned = explain_pb2.ExplainSpec(execution=explain_pb2.Execution(batch_size=3, block_size=7))
    assert resolved(16, spec=pinned) == (3, 7)


@pytest.mark.parametrize(("edge", "batch"), [(16, 1024), (128, 2), (256, 1)])
def test_a_pinned_batch_is_bounded_by_its_voxels_and_that_is_told(edge: int, batch: int) -> None:
    pinned = explain_pb2.ExplainSpec(execution=explain_pb2.Execution(batch_size=100_000))
    assert resolved(edge, spec=pinned)[0] == batch
    assert [each.code for each in differences(pinned.execution, explain_pb2.Execution(batch_size=batch))] == [
        "EXECUTION_DIFFERS"
    ]


@pytest.mark.parametrize("edge", [16, 32, 64, 128, 256])
def test_a_batch_that_this_server_chose_may_be_pinned(edge: int) -> None:
    pinned = explain_pb2.ExplainSpec(execution=explain_pb2.Execution(batch_size=resolved(edge)[0]))
    assert resolved(edge, spec=pinned) == resolved(edge)


def test_a_soft_deadline_gets_blocks_of_one_batch() -> None:
    spec = explain_pb2.ExplainSpec(budget=explain_pb2.Budget(soft_deadline=Duration(seconds=5)))
    assert resolved(16, spec=spec) == (16, 16)


def test_a_small_budget_gets_small_blocks() -> None:
    spec = explain_pb2.ExplainSpec(budget=explain_pb2.Budget(max_evaluations=10))
    assert resolved(16, spec=spec) == (16, 10)


def test_axes_of_any_size_are_taken_from_the_client() -> None:
    model = fake_model([(None, None, None)])
    sent = tensor_pb2.Tensor(role=tensor_pb2.TENSOR_ROLE_VOLUME, modality="t1", shape=[256, 256, 128])
    execution = resolve_execution(model, explain_pb2.ExplainSpec(tensors=[sent]), engine="e", threads=1)
    assert (execution.batch_size, execution.block_size) == (1, 8)


@pytest.mark.parametrize(
    ("pinned", "engine", "block"), [("", "a", 8), ("incremental-cpu", "incremental-cpu", 512), ("b", "a", 8)]
)
def test_an_engine_is_as_pinned_where_the_model_has_it_and_cuts_blocks_of_its_own(pinned: str, engine: str, block: int) -> None:
    spec = explain_pb2.ExplainSpec(execution=explain_pb2.Execution(engine=pinned))
    model = fake_model([(128, 128, 128)] * 4)
    found = resolve_execution(model, spec, engine="a", engines=("a", "incremental-cpu"), threads=1)
    assert (found.engine, found.block_size) == (engine, block)


@pytest.mark.parametrize(
    ("edge", "share", "most", "block"),
    [
        (128, 1.0, 512, 8),
        (128, 0.125, 512, 64),
        (128, 0.002, 512, 512),
        (128, 0.0, 512, 512),
        (128, 0.125, 5, 5),
        (16, 1, 512, 256),
    ],
)
def test_blocks_of_a_plan_take_about_the_same_work(edge: int, share: float, most: int, block: int) -> None:
    assert most <= INCREMENTAL_BLOCK
    assert block_of_plan(fake_model([(edge, edge, edge)] * 4), explain_pb2.ExplainSpec(), most=most, share=share) == block


def test_what_cannot_be_as_pinned_is_told_and_only_that() -> None:
    here = explain_pb2.Execution(engine="onnxruntime-cpu", threads_per_worker=2, batch_size=4, block_size=64)
    assert differences(explain_pb2.Execution(engine="onnxruntime-cpu", batch_size=4), here) == []
    (caution,) = differences(explain_pb2.Execution(threads_per_worker=8), here)
    assert caution.code == "EXECUTION_DIFFERS"
    assert "threads_per_worker" in caution.description
