"""Serves the metrics over plain HTTP, on a port of its own and from threads that are all there from the start."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from voxplain_server.observe.metrics import Metrics

THREADS = 2
MAX_CONNECTIONS = 16
"""Answered or waiting; who comes beyond them is hung up on."""
REQUEST_SECONDS = 10.0
"""A connection is cut off after it, however much still comes or goes."""


class MetricsServer:
    """Answers scrapes.

    prometheus_client's own server starts a thread for each connection: whoever reaches the port could have any number of them.

    Args:
        metrics: what is served.
        host, port: where; port 0: any that is free.

    Raises:
        OSError: the port cannot be bound.
    """

    def __init__(self, metrics: Metrics, *, host: str, port: int) -> None:
        self._server = _Server(host, port)
        self._server.set_app(make_wsgi_app(metrics.registry))
        self._thread = Thread(target=self._server.serve_forever, name="voxplain-metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that was bound."""
        return self._server.server_port

    def stop(self) -> None:
        """Let the port go."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(WSGIRequestHandler):
    def log_message(self, *told: object) -> None:
        """The log has lines of its own."""


class _Server(WSGIServer):
    def __init__(self, host: str, port: int) -> None:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = family
        self._lock = Lock()
        self._open: dict[socket.socket, float] = {}
        # Before the base's own beginning, which closes the server again where the port is taken.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="voxplain-metrics")
        super().__init__((str(address[0]), port), _Handler)
        together = Barrier(THREADS)
        for begun in [self._threads.submit(together.wait) for _ in range(THREADS)]:
            begun.result()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Have one connection answered by a thread."""
        with self._lock:
            full = len(self._open) >= MAX_CONNECTIONS
            if not full:
                self._open[request] = time.monotonic() + REQUEST_SECONDS
        if full:
            self.shutdown_request(request)
        else:
            self._threads.submit(self._answer, request, client_address)

    def service_actions(self) -> None:
        """Cut off who takes too long; called twice a second."""
        now = time.monotonic()
        with self._lock:
            late = [request for request, until in self._open.items() if until < now]
        for request in late:
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left in the middle is no news."""

    def server_close(self) -> None:
        """Let the port and the threads go."""
        super().server_close()
        with self._lock:
            left = [*self._open]
        for request in left:
            self.shutdown_request(request)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            with self._lock:
                self._open.pop(request, None)
            self.shutdown_request(request)
