"""One call over a real server: what comes when, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import numpy as np
import pytest
from voxplain import wire
from voxplain.errors import InternalFault, InvalidTensor, ServerUnavailable
from voxplain.v1 import explain_pb2, method_pb2
from voxplain_server.settings import Limits
from voxplain_server.workers.job import Job, JobEvent

from tests.server.service.front import (
    EXPLAIN,
    SHAPE,
    attribution,
    case_messages,
    compute_for_ever,
    good_spec,
    payload,
    running_front,
    spec_message,
)


async def test_a_call_gives_its_events_in_the_order_of_the_contract() -> None:
    spec = good_spec()
    spec.methods.add(key="second").gradient.SetInParent()
    async with running_front() as front:
        events = await front.explain(spec)
        kinds = [each.WhichOneof("event") for each in events]
        assert kinds[0] == "accepted"
        assert [each for each in kinds if each != "progress"] == [
            "accepted",
            "prediction",
            *(["map", "chunk", "method_result"] * 2),
            "summary",
        ]
        accepted = events[0].accepted
        assert (accepted.model, accepted.version, accepted.model_digest) == ("tiny", "2", "ab" * 32)
        assert [method.key for method in accepted.methods] == ["gradient", "second"]
        assert accepted.methods[0].gradient.HasField("absolute")
        assert events[-1].summary.record.explanation_id == accepted.explanation_id
        assert events[-1].summary.record.start_time.seconds > 0


async def test_the_runner_gets_every_byte_in_its_place_and_the_client_every_byte_of_the_map() -> None:
    case = payload(seed=3)
    async with running_front() as front:
        events = await front.explain(messages=case_messages(case, chunk_bytes=7))
        assert front.runner.cases == [case]
        assert all(place.offset % 64 == 0 for place in front.runner.jobs[0].tensors)
        (chunk,) = [each.chunk for each in events if each.WhichOneof("event") == "chunk"]
        assert chunk.tensor_id == "gradient-t1"
        assert chunk.crc32c == wire.checksum(chunk.data)
        assert np.array_equal(np.frombuffer(chunk.data, "<f4"), np.arange(120))


async def test_accepted_comes_before_any_chunk_is_sent() -> None:
    async with running_front() as front:
        call = front.open()
        await call.write(spec_message(good_spec()))
        first = await next_event(call)
        assert first.WhichOneof("event") == "accepted"
        assert front.admission.reserved_bytes > 0
        call.cancel()
        await until(lambda: front.admission.calls == 0)


async def test_computing_begins_without_a_half_close() -> None:
    async with running_front() as front:
        call = front.open()
        for message in [spec_message(good_spec()), *case_messages()]:
            await call.write(message)
        kinds = [explain_pb2.ExplainResponse.FromString(each).WhichOneof("event") async for each in call]
        assert kinds[-1] == "summary"
        assert await call.code() is grpc.StatusCode.OK


async def test_progress_tells_of_bytes_while_they_come() -> None:
    async with running_front() as front:
        call = front.open()
        messages = case_messages()
        await call.write(spec_message(good_spec()))
        await call.write(messages[0])
        told: list[explain_pb2.Progress] = []
        while len(told) < 2:
            event = await next_event(call)
            if event.WhichOneof("event") == "progress":
                told.append(event.progress)
        assert {each.stage for each in told} == {explain_pb2.Progress.STAGE_RECEIVING}
        assert (told[-1].bytes_received, told[-1].bytes_total) == (100, 960)
        call.cancel()


async def test_progress_is_repeated_while_the_runner_is_silent() -> None:
    async def think(job: Job) -> AsyncIterator[JobEvent]:
        yield explain_pb2.Progress(stage=explain_pb2.Progress.STAGE_COMPUTING, method_key="gradient", checkpoint=b"once")
        await asyncio.sleep(2.6)
        yield explain_pb2.ExplanationRecord()

    async with running_front(think) as front:
        told = [each.progress for each in await front.explain() if each.WhichOneof("event") == "progress"]
        assert len(told) >= 4
        # The first tells that the upload is whole, before the runner says a word.
        assert told[0].stage == explain_pb2.Progress.STAGE_PREPARING
        assert 0 < told[0].bytes_total == told[0].bytes_received
        assert {each.stage for each in told[1:]} == {explain_pb2.Progress.STAGE_COMPUTING}
        assert [each.checkpoint for each in told].count(b"once") == 1


async def test_progress_of_the_runner_tells_of_bytes_too() -> None:
    async with running_front() as front:
        told = [each.progress for each in await front.explain() if each.WhichOneof("event") == "progress"]
        preparing = [each for each in told if each.stage == explain_pb2.Progress.STAGE_PREPARING]
        assert preparing
        assert {(each.bytes_received, each.bytes_total) for each in preparing} == {(960, 960)}


async def test_several_calls_share_nothing() -> None:
    async with running_front(workers=4) as front:
        cases = [payload(seed) for seed in range(4)]
        calls = (front.explain(messages=case_messages(case, chunk_bytes=50 + seed)) for seed, case in enumerate(cases))
        await asyncio.gather(*calls)
        got = sorted(front.runner.cases, key=lambda case: case["t1"])
        assert got == sorted(cases, key=lambda case: case["t1"])


async def test_a_client_that_cancels_stops_the_job() -> None:
    async with running_front(compute_for_ever) as front:
        call = front.open()
        for message in [spec_message(good_spec()), *case_messages()]:
            await call.write(message)
        await asyncio.wait_for(front.runner.running.wait(), 10)
        assert front.runner.closed == 0
        call.cancel()
        await until(lambda: front.runner.closed == 1)
        await until(lambda: front.admission.calls == 0)
        lines = [json.loads(line) for line in front.log.getvalue().splitlines()]
        assert lines[-1]["outcome"] == "cancelled"
        assert not [line for line in lines if line["level"] == "error"]


async def test_a_client_that_vanishes_stops_the_job() -> None:
    async with running_front(compute_for_ever) as front:
        channel = grpc.aio.insecure_channel(front.address)
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(EXPLAIN)
        call = method()
        for message in [spec_message(good_spec()), *case_messages()]:
            await call.write(message)
        await asyncio.wait_for(front.runner.running.wait(), 10)
        await channel.close()
        await until(lambda: front.runner.closed == 1)
        await until(lambda: front.admission.calls == 0)


async def test_a_clients_deadline_stops_the_job() -> None:
    async with running_front(compute_for_ever) as front:
        call = front.open(timeout=1.0)
        for message in [spec_message(good_spec()), *case_messages()]:
            await call.write(message)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: front.runner.closed == 1)


async def test_a_runners_fault_keeps_its_code_reason_and_field() -> None:
    async def refuse(job: Job) -> AsyncIterator[JobEvent]:
        yield explain_pb2.Progress(stage=explain_pb2.Progress.STAGE_PREPARING)
        raise InvalidTensor("NOT_FINITE", "a volume holds NaN or infinity", field="tensors[1]")

    async with running_front(refuse) as front:
        refused = await front.refusal(messages=case_messages())
        assert (refused.code, refused.reason, refused.fields) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "NOT_FINITE",
            ["tensors[1]"],
        )
        assert refused.retry_s is None


async def test_lost_workers_tell_when_to_try_again() -> None:
    async def lose(job: Job) -> AsyncIterator[JobEvent]:
        yield explain_pb2.Progress()
        raise ServerUnavailable("WORKER_LOST", "try again", retry_after_s=1.5)

    async with running_front(lose) as front:
        refused = await front.refusal(messages=case_messages())
        assert (refused.code, refused.reason, refused.retry_s) == (grpc.StatusCode.UNAVAILABLE, "WORKER_LOST", 1.5)


async def test_a_foreign_exception_leaves_as_an_opaque_id_without_its_text() -> None:
    async def stumble(job: Job) -> AsyncIterator[JobEvent]:
        yield explain_pb2.Progress()
        raise ValueError("jane doe, 1950")

    async with running_front(stumble) as front:
        refused = await front.refusal(messages=case_messages())
        assert (refused.code, refused.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL_ERROR")
        assert refused.message.startswith("internal error ")
        fault_id = refused.message.removeprefix("internal error ")
        log = front.log.getvalue()
        assert "jane" not in refused.trailers + refused.message + log
        (line,) = [json.loads(each) for each in log.splitlines() if "internal_fault" in each]
        assert (line["fault_id"], line["kind"]) == (fault_id, "ValueError")
        assert "stumble" in line["where"]


async def test_faults_of_workers_are_counted_whether_a_method_or_the_call_ends_of_them() -> None:
    async def fail(job: Job) -> AsyncIterator[JobEvent]:
        yield explain_pb2.MethodResult(method_key="gradient", outcome=explain_pb2.OUTCOME_FAILED, reason="INTERNAL")
        yield explain_pb2.MethodResult(method_key="second", outcome=explain_pb2.OUTCOME_FAILED, reason="SCORE_NOT_FINITE")
        raise InternalFault("INTERNAL", "internal error 123; the operator finds it in the logs")

    spec = good_spec()
    spec.methods.add(key="second").gradient.SetInParent()
    async with running_front(fail) as front:
        assert (await front.refusal(spec, messages=case_messages())).reason == "INTERNAL"
        assert front.metrics.registry.get_sample_value("voxplain_internal_faults_total") == 2


async def test_a_runner_that_ends_without_a_record_is_a_fault_of_the_server() -> None:
    async def forget(job: Job) -> AsyncIterator[JobEvent]:
        yield explain_pb2.Progress()

    async with running_front(forget) as front:
        assert (await front.refusal(messages=case_messages())).code is grpc.StatusCode.INTERNAL


async def test_a_map_of_many_chunks_arrives_whole_and_below_the_message_limit() -> None:
    values = np.random.default_rng(0).standard_normal((128, 128, 40)).astype("<f4")

    async def explain(job: Job) -> AsyncIterator[JobEvent]:
        yield attribution("gradient", values)
        yield explain_pb2.ExplanationRecord()

    async with running_front(explain) as front:
        events = await front.explain()
        assert max(each.ByteSize() for each in events) < 4 << 20
        chunks = [each.chunk for each in events if each.WhichOneof("event") == "chunk"]
        assert len(chunks) == 3
        assert b"".join(each.data for each in chunks) == values.tobytes()


async def test_a_client_that_does_not_read_is_dropped_and_its_memory_released() -> None:
    values = np.zeros((256, 256, 64), dtype="<f4")

    async def explain(job: Job) -> AsyncIterator[JobEvent]:
        yield attribution("gradient", values)
        await asyncio.Event().wait()

    options = [("grpc.http2.lookahead_bytes", 65536), ("grpc.http2.bdp_probe", 0)]
    async with running_front(explain, limits=Limits(send_stall_seconds=0.5), options=options) as front:
        call = front.open()
        for message in [spec_message(good_spec()), *case_messages()]:
            await call.write(message)
        await asyncio.wait_for(front.runner.running.wait(), 10)
        await until(lambda: front.admission.calls == 0)
        assert front.runner.closed == 1
        assert "CLIENT_TOO_SLOW" in front.log.getvalue()
        call.cancel()


async def test_the_soft_deadline_counts_from_the_last_byte() -> None:
    spec = good_spec()
    spec.budget.soft_deadline.FromMilliseconds(1500)
    async with running_front() as front:
        before = asyncio.get_running_loop().time()
        await front.explain(spec)
        deadline = front.runner.jobs[0].deadline_s
        assert deadline is not None
        assert before + 1.5 <= deadline <= asyncio.get_running_loop().time() + 1.5


async def test_metrics_count_calls_methods_and_bytes() -> None:
    spec = good_spec()
    spec.methods.append(method_pb2.Method(key="mine", gradient=method_pb2.Gradient(absolute=True)))
    async with running_front() as front:
        await front.explain(spec)

        def value(name: str, **labels: str) -> float | None:
            return front.metrics.registry.get_sample_value(name, labels)

        assert value("voxplain_explanations_total", method="gradient", model="tiny", outcome="completed") == 2
        assert value("voxplain_calls_total", outcome="completed") == 1
        assert value("voxplain_received_bytes_total") == 2 * 4 * np.prod(SHAPE)
        assert value("voxplain_sent_bytes_total") == 2 * 480
        assert value("voxplain_inflight_explanations") == 0
        assert value("voxplain_admitted_bytes") == 0


async def test_unfinished_methods_are_counted_with_the_outcome_of_their_call() -> None:
    async def refuse(job: Job) -> AsyncIterator[JobEvent]:
        yield explain_pb2.MethodResult(method_key="gradient", outcome=explain_pb2.OUTCOME_COMPLETED)
        raise InvalidTensor("NOT_FINITE", "no", field="tensors[0]")

    spec = good_spec()
    spec.methods.add(key="second").gradient.SetInParent()
    async with running_front(refuse) as front:
        await front.refusal(spec, messages=case_messages())
        sample = front.metrics.registry.get_sample_value
        labels = {"method": "gradient", "model": "tiny"}
        assert sample("voxplain_explanations_total", labels | {"outcome": "completed"}) == 1
        assert sample("voxplain_explanations_total", labels | {"outcome": "failed"}) == 1


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_messages_are_refused(algorithm: grpc.Compression) -> None:
    async with running_front() as front:
        spec = good_spec()
        spec.request_id = "a" * 100
        refused = await front.refusal_of([spec_message(spec)], compression=algorithm)
        assert refused.code is grpc.StatusCode.UNIMPLEMENTED
        assert front.runner.jobs == []


async def next_event(call: grpc.aio.StreamStreamCall[bytes, bytes]) -> explain_pb2.ExplainResponse:
    async with asyncio.timeout(20):
        message = await call.read()
    assert isinstance(message, bytes)
    return explain_pb2.ExplainResponse.FromString(message)


async def until(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_drained_call_is_told_as_drained_and_not_as_completed() -> None:
    async def drain(job: Job) -> AsyncIterator[JobEvent]:
        yield explain_pb2.MethodResult(method_key="gradient", outcome=explain_pb2.OUTCOME_DRAINED)
        yield explain_pb2.ExplanationRecord(explanation_id=job.explanation_id)

    async with running_front(drain) as front:
        await front.explain()
        await until(lambda: "call_ended" in front.log.getvalue())
        ended = next(json.loads(line) for line in front.log.getvalue().splitlines() if "call_ended" in line)
        assert (ended["outcome"], ended["reason"]) == ("drained", "SHUTTING_DOWN")
        sample = front.metrics.registry.get_sample_value
        assert sample("voxplain_calls_total", {"outcome": "drained"}) == 1
        assert sample("voxplain_explanation_duration_seconds_count", {"model": "tiny"}) is None


async def test_the_time_to_the_first_map_is_told_once_where_snapshots_are_asked_for() -> None:
    spec = good_spec()
    async with running_front() as front:
        await front.explain(spec)
        sample = front.metrics.registry.get_sample_value
        assert sample("voxplain_time_to_first_snapshot_seconds_count") == 0
        spec.snapshot_interval.FromMilliseconds(200)
        spec.methods.add(key="second").gradient.SetInParent()
        await front.explain(spec)
        assert sample("voxplain_time_to_first_snapshot_seconds_count") == 1
