"""What any gRPC client may expect of the server, shown with clients that know nothing of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import grpc.aio
from voxplain_client.connection import CHANNEL_OPTIONS
from voxplain_server.service.server import OPTIONS

from tests.server.service.front import EXPLAIN, case_messages, compute_for_ever, good_spec, running_front, spec_message
from tests.tools import tool

MOST_CALLS = 8


async def test_one_channel_over_two_servers_gives_each_a_job() -> None:
    async with running_front(compute_for_ever) as first, running_front(compute_for_ever) as second:
        target = f"ipv4:{first.address},{second.address}"
        async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
            method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(EXPLAIN)
            calls: list[grpc.aio.StreamStreamCall[bytes, bytes]] = []
            async with asyncio.timeout(60):
                # The first calls may all go to the server that was connected first.
                while not (first.runner.jobs and second.runner.jobs):
                    assert len(calls) < MOST_CALLS
                    calls.append(method())
                    for message in (spec_message(good_spec()), *case_messages()):
                        await calls[-1].write(message)
                    await asyncio.sleep(0.2)
            assert first.admission.calls + second.admission.calls == len(calls)
            for call in calls:
                call.cancel()


async def test_a_generic_client_finds_its_way_by_reflection(tmp_path: Path) -> None:
    buf = tool("buf")

    def ask(*arguments: str) -> str:
        plain = ["--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", "grpc-v1alpha"]
        done = subprocess.run(
            [buf, "curl", *plain, *arguments], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    async with running_front(reflection=True) as front:
        url = f"http://{front.address}"
        listed = await asyncio.to_thread(ask, "--list-services", url)
        services = {"voxplain.v1.ExplainService", "voxplain.v1.CatalogService", "inference.GRPCInferenceService"}
        assert services <= set(listed.split())
        model = await asyncio.to_thread(ask, "-d", '{"name": "tiny"}', f"{url}/voxplain.v1.CatalogService/GetModel")
        assert json.loads(model)["model"]["name"] == "tiny"
        metadata = await asyncio.to_thread(ask, "-d", '{"name": "tiny"}', f"{url}/inference.GRPCInferenceService/ModelMetadata")
        assert json.loads(metadata)["inputs"][0]["name"] == "image"


def test_the_server_allows_the_pings_that_the_client_sends_and_notices_a_peer_that_is_gone() -> None:
    ours, theirs = dict(OPTIONS), dict(CHANNEL_OPTIONS)
    assert ours["grpc.http2.min_ping_interval_without_data_ms"] <= int(theirs["grpc.keepalive_time_ms"])
    assert ours["grpc.keepalive_permit_without_calls"] == 1
    for ends in (ours, theirs):
        assert int(ends["grpc.keepalive_time_ms"]) + int(ends["grpc.keepalive_timeout_ms"]) <= 40_000
