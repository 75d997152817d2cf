"""Frames that no gRPC library would send: each stream ends with a status, nothing is held, and the next client is served."""

from __future__ import annotations

import asyncio
import zlib

import pytest
from voxplain_server.settings import Limits

from tests.server.service.front import Front, running_front
from tests.stress.raw_client import raw_client

MIB = 1 << 20


async def assert_it_serves(front: Front) -> None:
    assert (await front.explain())[-1].WhichOneof("event") == "summary"


def framed(message: bytes, *, flag: int = 0, declared: int | None = None) -> bytes:
    return bytes([flag]) + (len(message) if declared is None else declared).to_bytes(4, "big") + message


def send(front: Front, bodies: list[bytes], *, end: bool = False, **headers: str) -> list[str]:
    """Send each body on a stream of its own, and tell how the server ended them."""
    with raw_client(front.address) as client:
        streams = [client.open(**headers) for _ in bodies]
        for stream, body in zip(streams, bodies, strict=True):
            client.send(stream, body, end=end)
        client.wait_for(streams, 20.0)
        return [client.ended.get(stream, "open") for stream in streams]


async def test_messages_that_are_declared_and_drip_end_when_the_first_message_is_late() -> None:
    async with running_front(limits=Limits(first_message_seconds=0.3)) as front:
        bodies = [framed(b"drip", declared=4 * MIB - 16)] * 8
        assert await asyncio.to_thread(send, front, bodies) == ["4"] * 8
        await assert_it_serves(front)


async def test_messages_that_declare_too_much_end_at_once() -> None:
    async with running_front() as front:
        bodies = [framed(b"drip", declared=1 << 30)] * 8
        assert await asyncio.to_thread(send, front, bodies) == ["8"] * 8
        await assert_it_serves(front)


async def test_compressed_messages_are_refused_and_not_unpacked() -> None:
    bomb = zlib.compress(bytes(64 * MIB), 9)
    async with running_front() as front:
        ended = await asyncio.to_thread(send, front, [framed(bomb, flag=1)] * 3, end=True, grpc_encoding="gzip")
        assert ended == ["12"] * 3
        assert front.ledger.acquired["slots"] == 0
        await assert_it_serves(front)


@pytest.mark.parametrize("flag", [2, 0x80, 0xFF])
async def test_frames_of_no_known_kind_end_with_a_status(flag: int) -> None:
    async with running_front() as front:
        ended = await asyncio.to_thread(send, front, [framed(b"x", flag=flag)], end=True)
        assert ended[0] not in ("open", "0")
        await assert_it_serves(front)


async def test_streams_that_are_opened_and_reset_leave_nothing() -> None:
    def reset(front: Front) -> None:
        with raw_client(front.address) as client:
            for _ in range(20):
                for _ in range(20):
                    client.reset(client.open())
                client.flush()
                client.read(0.001)

    async with running_front() as front:
        await asyncio.to_thread(reset, front)
        await assert_it_serves(front)


async def test_a_flood_of_pings_is_hung_up_on() -> None:
    def ping(front: Front) -> bool:
        with raw_client(front.address) as client:
            for number in range(200):
                client.ping(number)
                client.flush()
                client.read(0.001)
                if client.closed:
                    break
            client.read(2.0)
            return client.closed

    async with running_front() as front:
        assert await asyncio.to_thread(ping, front)
        await assert_it_serves(front)
