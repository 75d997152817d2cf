"""An explanation from request to record, sync and async, against a server that speaks the contract."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from voxplain.errors import Cancelled, ChecksumMismatch, DeadlinePassed
from voxplain.v1 import explain_pb2, method_pb2
from voxplain.volume import Volume
from voxplain_client import METHOD_NAMES, AsyncClient, Client, MapReceived

from tests.client.contract_server import ContractServer


def test_events_come_typed_and_in_the_order_of_the_contract(server: ContractServer, volumes: dict[str, Volume]) -> None:
    with Client(server.address) as client:
        events = list(client.explain(model="fake", volumes=volumes, methods=["gradient"]))
    assert [type(event) for event in events] == [
        explain_pb2.Accepted,
        explain_pb2.Prediction,
        explain_pb2.Progress,
        MapReceived,
        MapReceived,
        explain_pb2.MethodResult,
        explain_pb2.ExplanationRecord,
    ]


def test_the_result_holds_every_map_by_method_and_modality(server: ContractServer, volumes: dict[str, Volume]) -> None:
    with Client(server.address) as client:
        result = client.explain(model="fake", volumes=volumes, methods=["gradient", "grad-cam"], seed=5).result()
    assert list(result.maps) == ["gradient", "grad-cam"]
    for modality, volume in volumes.items():
        received = result.maps["gradient"][modality]
        np.testing.assert_array_equal(received.array, volume.voxels * 2)
        assert received.geometry.same_grid(volume.geometry)
        assert not received.array.flags.writeable
    assert result.maps["grad-cam"]["t1"] is result.maps["grad-cam"]["t1c"]
    assert result.record.seed == 5
    assert result.prediction.target_name == "irregular"
    assert set(result.results) == {"gradient", "grad-cam"}


def test_the_server_gets_the_very_bytes(server: ContractServer) -> None:
    voxels = np.asfortranarray(np.random.default_rng(1).integers(-900, 900, (70, 80, 60)).astype(np.int16))
    with Client(server.address) as client:
        client.explain(model="fake", volumes={"t1": voxels, "t1c": voxels[::-1]}, methods=["gradient"]).result()
    np.testing.assert_array_equal(server.volumes["volume-0"], voxels)
    np.testing.assert_array_equal(server.volumes["volume-1"], voxels[::-1])


def test_a_map_that_is_not_the_recorded_one_is_refused(volumes: dict[str, Volume]) -> None:
    with (
        ContractServer(change_map=True) as server,
        Client(server.address) as client,
        pytest.raises(ChecksumMismatch) as refused,
    ):
        client.explain(model="fake", volumes=volumes, methods=["gradient"]).result()
    assert refused.value.reason == "MAP_DIGEST_MISMATCH"


def test_maps_are_forgotten_when_they_shall_not_be_kept(server: ContractServer, volumes: dict[str, Volume]) -> None:
    with Client(server.address) as client:
        result = client.explain(model="fake", volumes=volumes, methods=["gradient"], keep_maps=False).result()
    assert not result.maps
    assert result.record.maps


def test_cancel_from_another_thread_stops_the_server_and_raises(volumes: dict[str, Volume]) -> None:
    with ContractServer(wait_before_maps=True) as server, Client(server.address) as client:
        explanation = client.explain(model="fake", volumes=volumes, methods=["gradient"])

        def cancel_later() -> None:
            server.waiting.wait(10)
            explanation.cancel()

        threading.Thread(target=cancel_later).start()
        with pytest.raises(Cancelled):
            explanation.result()
        assert server.cancelled.wait(10)
    assert len(server.specs) == 1


def test_leaving_the_block_early_cancels(volumes: dict[str, Volume]) -> None:
    with ContractServer(wait_before_maps=True) as server, Client(server.address) as client:
        with client.explain(model="fake", volumes=volumes, methods=["gradient"]) as explanation:
            for event in explanation:
                if isinstance(event, explain_pb2.Prediction):
                    break
        assert server.cancelled.wait(10)


def test_a_timeout_ends_the_whole_explanation(volumes: dict[str, Volume]) -> None:
    with ContractServer(wait_before_maps=True) as server, Client(server.address) as client, pytest.raises(DeadlinePassed):
        client.explain(model="fake", volumes=volumes, methods=["gradient"], timeout_s=0.3).result()


def test_the_catalogue_is_read_page_by_page(server: ContractServer, volumes: dict[str, Volume]) -> None:
    with Client(server.address) as client:
        assert [model.name for model in client.models()] == ["fake", "other"]
        assert client.describe("fake").classes == ["round", "irregular"]
        assert {method.name for method in client.methods()} == set(METHOD_NAMES)
        plans = client.estimate(model="fake", volumes=volumes, methods=["lime"]).plans
    assert [plan.method_key for plan in plans] == ["lime"]
    assert not server.specs


async def test_the_async_client_gives_the_same(server: ContractServer, volumes: dict[str, Volume]) -> None:
    async with AsyncClient(server.address) as client:
        explanation = client.explain(model="fake", volumes=volumes, methods=["gradient"])
        kinds = [type(event).__name__ async for event in explanation]
        result = await explanation.result()
        assert (await client.describe("fake")).name == "fake"
        assert [model.name for model in await client.models()] == ["fake", "other"]
        assert len(await client.methods()) == len(method_pb2.Method.DESCRIPTOR.oneofs_by_name["method"].fields)
        assert (await client.estimate(model="fake", volumes=volumes, methods=["lime"])).plans
    assert kinds[0] == "Accepted"
    assert kinds[-1] == "ExplanationRecord"
    np.testing.assert_array_equal(result.maps["gradient"]["t1"].array, volumes["t1"].voxels * 2)


async def test_cancelling_the_async_explanation_stops_the_server(volumes: dict[str, Volume]) -> None:
    with ContractServer(wait_before_maps=True) as server:
        async with (
            AsyncClient(server.address) as client,
            client.explain(model="fake", volumes=volumes, methods=["gradient"]) as explanation,
        ):
            with pytest.raises(Cancelled):
                async for event in explanation:
                    if isinstance(event, explain_pb2.Prediction):
                        explanation.cancel()
        assert await asyncio.to_thread(server.cancelled.wait, 10)


async def test_cancelling_the_task_stops_the_server_and_stays_a_cancellation(volumes: dict[str, Volume]) -> None:
    with ContractServer(wait_before_maps=True) as server:
        async with AsyncClient(server.address) as client:
            task = asyncio.create_task(client.explain(model="fake", volumes=volumes, methods=["gradient"]).result())
            await asyncio.to_thread(server.waiting.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await asyncio.to_thread(server.cancelled.wait, 10)
