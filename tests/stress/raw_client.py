"""An HTTP/2 client without manners: frames that no gRPC library would send."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

EXPLAIN = "/voxplain.v1.ExplainService/Explain"


class RawClient:
    """One connection.

    Attributes:
        ended: streams that the server ended, and how: "grpc-status" as text, or "reset".
        closed: whether the server closed the connection or sent GOAWAY.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(header_encoding="utf-8", validate_inbound_headers=False)
        )
        self._h2.initiate_connection()
        self.ended: dict[int, str] = {}
        self.closed = False
        self._flush()

    def open(self, *, path: str = EXPLAIN, **headers: str) -> int:
        """Send the headers of a call; returns its stream."""
        stream = self._h2.get_next_available_stream_id()
        told = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
        told |= {"content-type": "application/grpc"} | {name.replace("_", "-"): value for name, value in headers.items()}
        self._h2.send_headers(stream, list(told.items()))
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> bool:
        """Send bytes of a body as far as the windows allow; False: the stream is gone."""
        try:
            while data:
                room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
                if room <= 0:
                    self._flush()
                    self.read(0.2)
                    if stream in self.ended or self.closed:
                        return False
                    continue
                self._h2.send_data(stream, data[:room])
                data = data[room:]
            if end:
                self._h2.end_stream(stream)
            self._flush()
        except (h2.exceptions.ProtocolError, OSError):
            return False
        return True

    def reset(self, stream: int) -> None:
        """Take a call back."""
        self._h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)

    def ping(self, number: int) -> None:
        """Send a ping."""
        self._h2.ping(number.to_bytes(8, "big"))

    def flush(self) -> bool:
        """Let everything out; False: the server has hung up."""
        try:
            self._flush()
        except OSError:
            self.closed = True
        return not self.closed

    def read(self, seconds: float) -> None:
        """Take in what comes within a time; replies to what HTTP/2 asks for."""
        until = time.monotonic() + seconds
        while not self.closed and (left := until - time.monotonic()) > 0:
            self._socket.settimeout(max(left, 0.001))
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                return
            except OSError:
                self.closed = True
                return
            if not data:
                self.closed = True
                return
            try:
                for event in self._h2.receive_data(data):
                    self._note(event)
            except h2.exceptions.ProtocolError:
                self.closed = True
            self.flush()

    def wait_for(self, streams: list[int], seconds: float) -> None:
        """Read until the server has ended all of these."""
        until = time.monotonic() + seconds
        while not self.closed and time.monotonic() < until and any(stream not in self.ended for stream in streams):
            self.read(0.05)

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _note(self, event: object) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.closed = True
        elif isinstance(event, h2.events.StreamReset):
            self.ended.setdefault(event.stream_id, "reset")
        elif isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            told = {str(name): str(value) for name, value in event.headers}
            if "grpc-status" in told:
                self.ended[event.stream_id] = told["grpc-status"]

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._socket.settimeout(10)
            self._socket.sendall(data)


@contextmanager
def raw_client(address: str) -> Iterator[RawClient]:
    """A connection that is closed in the end."""
    client = RawClient(address)
    try:
        yield client
    finally:
        client.close()
