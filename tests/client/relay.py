"""A connection that can be cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator


def relay(port: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """A TCP relay in front of a port, and a function that cuts all its connections."""
    listener = socket.create_server(("127.0.0.1", 0))
    pairs: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            return

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", port))
            pairs.extend((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=pump, args=(source, sink), daemon=True).start()

    def cut() -> None:
        for end in pairs:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", cut
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        cut()
        for end in pairs:
            end.close()
