"""Good calls for which there is no room: what they are told, and when to come again."""

from __future__ import annotations

import asyncio

import grpc
from voxplain_server.settings import Limits

from tests.server.service.front import (
    VOLUME_BYTES,
    case_messages,
    compute_for_ever,
    good_spec,
    running_front,
    spec_message,
)

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_declared_bytes_over_the_limit_are_refused_on_the_spec() -> None:
    async with running_front(limits=Limits(max_declared_bytes=VOLUME_BYTES + 1)) as front:
        refused = await front.refusal()
        assert (refused.code, refused.reason, refused.fields) == (EXHAUSTED, "DECLARED_BYTES_EXCEEDED", ["tensors[1].shape"])
        assert refused.retry_s is None


async def test_a_call_that_never_fits_is_refused_without_a_retry() -> None:
    async with running_front(max_bytes=1000) as front:
        refused = await front.refusal()
        assert (refused.code, refused.reason, refused.retry_s) == (EXHAUSTED, "CALL_TOO_LARGE", None)


async def test_a_call_that_finds_no_slot_is_told_when_to_try_again() -> None:
    async with running_front(compute_for_ever, workers=1, queue_length=0) as front:
        call = front.open()
        for message in [spec_message(good_spec()), *case_messages()]:
            await call.write(message)
        await asyncio.wait_for(front.runner.running.wait(), 10)
        refused = await front.refusal()
        assert (refused.code, refused.reason) == (EXHAUSTED, "QUEUE_FULL")
        assert refused.retry_s == 5.0
        labels = {"reason": "QUEUE_FULL"}
        assert front.metrics.registry.get_sample_value("voxplain_admission_rejections_total", labels) == 1
        async with asyncio.timeout(10):
            # Counted when the status is out, of which the client may know first.
            while front.metrics.registry.get_sample_value("voxplain_refusal_seconds_count") != 1:
                await asyncio.sleep(0.01)
        call.cancel()


async def test_a_call_that_finds_no_memory_is_told_when_to_try_again() -> None:
    async with running_front(compute_for_ever, max_bytes=4000) as front:
        call = front.open()
        await call.write(spec_message(good_spec()))
        assert await call.read()
        refused = await front.refusal()
        assert (refused.code, refused.reason, refused.retry_s) == (EXHAUSTED, "MEMORY_EXHAUSTED", 5.0)
        call.cancel()
