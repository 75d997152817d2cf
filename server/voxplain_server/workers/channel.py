"""Frames between the front and a worker: one protobuf message each, with descriptors of memory files beside it.

The socket is AF_UNIX SOCK_SEQPACKET: it keeps the borders of frames, and carries descriptors (SCM_RIGHTS) with the frame they
belong to. Nothing is ever unpickled. A frame is one tag byte and the message; a message over 64 KiB lies in a memory file of
its own, whose descriptor comes first.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from voxplain_server.workers.memory import close_all, create_memory

MAX_INLINE_BYTES = 64 * 1024
MAX_DESCRIPTORS = 4
_INLINE, _SPILLED = b"\x00", b"\x01"
_FRAMES_PER_TURN = 64

Received = TypeVar("Received", bound=Message)


class ChannelBroken(Exception):
    """The other end is gone, or what it sent is no frame."""


def open_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, one for each end."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel(Generic[Received]):
    """The blocking end, for a worker. `send` may be called from any thread, `receive` from one."""

    def __init__(self, end: socket.socket, received: type[Received]) -> None:
        self._socket = end
        self._received = received
        self._sending = threading.Lock()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send one message. The descriptors stay the caller's.

        Raises:
            ChannelBroken: the other end is gone.
        """
        payload, attached, spilled = _pack(message, descriptors)
        try:
            with self._sending:
                socket.send_fds(self._socket, [payload], attached)
        except OSError as error:
            raise ChannelBroken("the other end is gone") from error
        finally:
            close_all(spilled)

    def receive(self) -> tuple[Received, list[int]]:
        """Wait for one message and its descriptors, which are the caller's to close.

        Raises:
            ChannelBroken: the other end is gone.
        """
        try:
            return _receive(self._socket, self._received)
        except OSError as error:
            raise ChannelBroken("the other end is gone") from error


class AsyncChannel(Generic[Received]):
    """The end of the event loop. Nothing waits: frames that the socket does not take at once are queued.

    Args:
        end: the socket; the channel owns it.
        received: class of the messages that come in.
        on_message: called with every message and its descriptors, which are then its own to close.
        on_closed: called once when the other end is gone, or sent what is no frame.
    """

    def __init__(
        self,
        end: socket.socket,
        received: type[Received],
        *,
        on_message: Callable[[Received, list[int]], None],
        on_closed: Callable[[], None],
    ) -> None:
        end.setblocking(False)
        self._socket = end
        self._received = received
        self._on_message = on_message
        self._on_closed = on_closed
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._loop.add_reader(end.fileno(), self._readable)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send one message, or queue it. The descriptors stay the caller's. Sending to a closed end does nothing."""
        if not self._open:
            return
        payload, attached, spilled = _pack(message, descriptors)
        try:
            if self._unsent or not self._send_now(payload, attached):
                self._unsent.append((payload, [os.dup(descriptor) for descriptor in attached]))
                self._loop.add_writer(self._socket.fileno(), self._writable)
        finally:
            close_all(spilled)

    def close(self) -> None:
        """Let go of the socket; `on_closed` is not called."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for _, attached in self._unsent:
            close_all(attached)
        self._unsent.clear()

    def _send_now(self, payload: bytes, attached: Sequence[int]) -> bool:
        try:
            socket.send_fds(self._socket, [payload], list(attached))
        except BlockingIOError:
            return False
        except OSError:
            # The end of the other side is heard by the reader, after what it still had to say.
            return True
        return True

    def _writable(self) -> None:
        while self._unsent:
            payload, attached = self._unsent[0]
            if not self._send_now(payload, attached):
                return
            self._unsent.popleft()
            close_all(attached)
        self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        for _ in range(_FRAMES_PER_TURN):
            if not self._open:
                return
            try:
                message, descriptors = _receive(self._socket, self._received)
            except BlockingIOError:
                return
            except (ChannelBroken, OSError):
                self.close()
                self._on_closed()
                return
            self._on_message(message, descriptors)


def _pack(message: Message, descriptors: Sequence[int]) -> tuple[bytes, list[int], list[int]]:
    """The frame, the descriptors to attach, and those of them to close afterwards."""
    if len(descriptors) > MAX_DESCRIPTORS:
        raise ValueError("too many descriptors for one frame")
    encoded = message.SerializeToString()
    if len(encoded) <= MAX_INLINE_BYTES:
        return _INLINE + encoded, list(descriptors), []
    spilled = create_memory(len(encoded))
    os.pwrite(spilled, encoded, 0)
    return _SPILLED, [spilled, *descriptors], [spilled]


def _receive(end: socket.socket, received: type[Received]) -> tuple[Received, list[int]]:
    # socket.recv_fds of Python 3.11 drops its flags, and the descriptors would leak into every process spawned later.
    room = socket.CMSG_SPACE((MAX_DESCRIPTORS + 1) * array("i").itemsize)
    frame, ancillary, flags, _ = end.recvmsg(MAX_INLINE_BYTES + 1, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = _descriptors(ancillary)
    try:
        if not frame or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ChannelBroken("no whole frame")
        message = received()
        message.ParseFromString(_message_in(frame, descriptors))
    except (ChannelBroken, DecodeError) as error:
        close_all(descriptors)
        raise ChannelBroken("no frame of ours") from error
    return message, descriptors


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _message_in(frame: bytes, descriptors: list[int]) -> bytes:
    if frame[:1] == _INLINE:
        return frame[1:]
    if frame != _SPILLED or not descriptors:
        raise ChannelBroken("no frame of ours")
    spilled = descriptors.pop(0)
    try:
        return os.pread(spilled, os.fstat(spilled).st_size, 0)
    finally:
        os.close(spilled)
