"""Statuses become errors of the tree, with reason, field and delay."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest
from voxplain.errors import ERRORS_BY_CODE, InternalFault, ModelNotFound, ServerUnavailable, VoxplainError
from voxplain.volume import Volume
from voxplain_client import AsyncClient, Client, RetryPolicy

from tests.client.contract_server import MODALITIES, Break, ContractServer, status_of

NEVER = RetryPolicy(attempts=0)


@pytest.mark.parametrize("code", list(ERRORS_BY_CODE), ids=lambda code: code.name)
def test_each_code_is_raised_as_its_class(code: grpc.StatusCode, volumes: dict[str, Volume]) -> None:
    status = status_of(code, "SOME_REASON", "words", fields=("tensors[1].shape", "seed"), retry_s=0.5)
    with (
        ContractServer(breaks=[Break(after=1, status=status)]) as server,
        Client(server.address, policy=NEVER) as client,
        pytest.raises(VoxplainError) as raised,
    ):
        client.explain(model="fake", volumes=volumes, methods=["gradient"]).result()
    assert type(raised.value) is ERRORS_BY_CODE[code]
    assert raised.value.reason == "SOME_REASON"
    assert raised.value.message == "words"
    assert raised.value.field == "tensors[1].shape, seed"
    assert raised.value.retry_after_s == 0.5


def test_the_catalogue_raises_typed_errors(server: ContractServer) -> None:
    with Client(server.address) as client, pytest.raises(ModelNotFound) as raised:
        client.describe("absent")
    assert (raised.value.reason, raised.value.field) == ("MODEL_NOT_FOUND", "name")


async def test_the_async_catalogue_raises_typed_errors(server: ContractServer) -> None:
    async with AsyncClient(server.address) as client:
        with pytest.raises(ModelNotFound) as raised:
            await client.describe("absent")
    assert raised.value.reason == "MODEL_NOT_FOUND"


def test_a_status_without_details_keeps_its_code_as_the_reason(volumes: dict[str, Volume]) -> None:
    broken = Break(after=0, code=grpc.StatusCode.PERMISSION_DENIED, text="no token")
    with ContractServer(breaks=[broken]) as server, Client(server.address) as client, pytest.raises(VoxplainError) as raised:
        client.explain(model="fake", volumes=volumes, methods=["gradient"]).result()
    assert (raised.value.reason, raised.value.message) == ("PERMISSION_DENIED", "no token")


def test_another_service_at_the_address_is_recognised(volumes: dict[str, Volume]) -> None:
    broken = Break(after=0, code=grpc.StatusCode.UNIMPLEMENTED, text="Method not found!")
    with ContractServer(breaks=[broken]) as server, Client(server.address) as client, pytest.raises(InternalFault) as raised:
        client.explain(model="fake", volumes=volumes, methods=["gradient"]).result()
    assert raised.value.reason == "NOT_A_VOXPLAIN_SERVER"


def test_a_policy_of_no_attempts_raises_a_lost_connection(volumes: dict[str, Volume]) -> None:
    with (
        ContractServer(breaks=[Break(after=3)]) as server,
        Client(server.address, policy=NEVER) as client,
        pytest.raises(ServerUnavailable) as raised,
    ):
        client.explain(model="fake", volumes=volumes, methods=["gradient"]).result()
    assert raised.value.reason == "CONNECTION_LOST"


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE], ids=lambda code: code.name)
def test_a_status_lost_while_writing_is_a_lost_connection(code: grpc.StatusCode, volumes: dict[str, Volume]) -> None:
    broken = Break(after=0, code=code, text="Internal error from Core")
    with (
        ContractServer(breaks=[broken]) as server,
        Client(server.address, policy=NEVER) as client,
        pytest.raises(ServerUnavailable) as raised,
    ):
        client.explain(model="fake", volumes=volumes, methods=["gradient"]).result()
    assert raised.value.reason == "CONNECTION_LOST"


async def test_an_async_call_refused_at_its_spec_keeps_the_reason_and_leaves_no_task_behind() -> None:
    large = {name: np.zeros((120, 120, 120), np.float32) for name in MODALITIES}
    status = status_of(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "words", fields=("model",))
    before = asyncio.all_tasks()
    with ContractServer(breaks=[Break(after=0, status=status) for _ in range(5)]) as server:
        async with AsyncClient(server.address, policy=NEVER) as client:
            for _ in range(5):
                with pytest.raises(ModelNotFound) as raised:
                    await client.explain(model="fake", volumes=large, methods=["gradient"]).result()
                assert (raised.value.reason, raised.value.field) == ("MODEL_NOT_FOUND", "model")
        for _ in range(100):
            if asyncio.all_tasks() <= before:
                break
            await asyncio.sleep(0.05)
        assert asyncio.all_tasks() <= before
