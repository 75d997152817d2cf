"""Frames and descriptors between two ends."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from voxplain.worker.v1 import worker_pb2
from voxplain_server.workers.channel import MAX_INLINE_BYTES, AsyncChannel, Channel, ChannelBroken, open_pair
from voxplain_server.workers.memory import create_memory, map_memory


def command(text: str = "") -> worker_pb2.Command:
    return worker_pb2.Command(call=5, check=worker_pb2.Check(name=text))


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_message_and_its_descriptors_arrive_together() -> None:
    ours, theirs = open_pair()
    memory = create_memory(3)
    os.pwrite(memory, b"abc", 0)
    with ours, theirs:
        Channel(ours, worker_pb2.Event).send(command("first"), [memory])
        message, descriptors = Channel(theirs, worker_pb2.Command).receive()
    assert message == command("first")
    (descriptor,) = descriptors
    assert map_memory(descriptor, 3, writable=False).tobytes() == b"abc"
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    os.close(memory)


def test_a_message_too_large_for_a_frame_goes_by_memory_and_leaves_no_descriptor_behind() -> None:
    before = open_descriptors()
    ours, theirs = open_pair()
    memory = create_memory(1)
    with ours, theirs:
        Channel(ours, worker_pb2.Event).send(command("x" * 3 * MAX_INLINE_BYTES), [memory])
        message, descriptors = Channel(theirs, worker_pb2.Command).receive()
        assert message.check.name == "x" * 3 * MAX_INLINE_BYTES
        assert len(descriptors) == 1
    os.close(descriptors[0])
    os.close(memory)
    assert open_descriptors() == before


def test_frames_keep_their_borders_and_their_order() -> None:
    ours, theirs = open_pair()
    with ours, theirs:
        sender, receiver = Channel(ours, worker_pb2.Event), Channel(theirs, worker_pb2.Command)
        for number in range(20):
            sender.send(command(f"{number}"))
        assert [receiver.receive()[0].check.name for _ in range(20)] == [f"{number}" for number in range(20)]


def test_a_closed_end_is_a_broken_channel() -> None:
    ours, theirs = open_pair()
    with theirs:
        ours.close()
        with pytest.raises(ChannelBroken):
            Channel(theirs, worker_pb2.Command).receive()
        with pytest.raises(ChannelBroken):
            Channel(theirs, worker_pb2.Command).send(command())


@pytest.mark.parametrize("frame", [b"\x00\xff\xff\xff", b"\x07", b"\x01"])
def test_what_is_no_frame_is_a_broken_channel(frame: bytes) -> None:
    ours, theirs = open_pair()
    with ours, theirs:
        ours.send(frame)
        with pytest.raises(ChannelBroken):
            Channel(theirs, worker_pb2.Command).receive()


async def test_the_event_loop_queues_what_the_socket_does_not_take() -> None:
    before = open_descriptors()
    ours, theirs = open_pair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    memory = create_memory(1)
    channel = AsyncChannel(ours, worker_pb2.Event, on_message=lambda *_: None, on_closed=lambda: None)
    for number in range(200):
        channel.send(command(f"{number} " + "x" * 1000), [memory])
    os.close(memory)
    receiver = Channel(theirs, worker_pb2.Command)
    loop = asyncio.get_running_loop()
    for number in range(200):
        message, descriptors = await loop.run_in_executor(None, receiver.receive)
        assert message.check.name.split()[0] == f"{number}"
        os.close(descriptors[0])
    channel.close()
    theirs.close()
    assert open_descriptors() <= before


async def test_closing_drops_queued_descriptors() -> None:
    before = open_descriptors()
    ours, theirs = open_pair()
    memory = create_memory(1)
    channel = AsyncChannel(ours, worker_pb2.Event, on_message=lambda *_: None, on_closed=lambda: None)
    for _ in range(500):
        channel.send(command("x" * 1000), [memory])
    channel.close()
    theirs.close()
    os.close(memory)
    assert open_descriptors() == before


async def test_the_event_loop_hears_of_the_end_after_the_last_message() -> None:
    heard: list[str] = []
    ended = asyncio.Event()
    ours, theirs = open_pair()
    AsyncChannel(ours, worker_pb2.Command, on_message=lambda message, _: heard.append(message.check.name), on_closed=ended.set)
    Channel(theirs, worker_pb2.Event).send(command("last words"))
    theirs.close()
    await asyncio.wait_for(ended.wait(), 5)
    assert heard == ["last words"]
