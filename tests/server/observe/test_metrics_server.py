"""The metrics port has few threads and few connections, whoever comes, and serves again when they have left."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from voxplain_server.observe import metrics_server
from voxplain_server.observe.metrics import Metrics
from voxplain_server.observe.metrics_server import MAX_CONNECTIONS, THREADS, MetricsServer


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    made = MetricsServer(Metrics(), host="127.0.0.1", port=0)
    yield made
    made.stop()


def metrics_threads() -> set[threading.Thread]:
    """Those of all metrics servers that are alive in this process."""
    return {each for each in threading.enumerate() if each.name.startswith("voxplain-metrics")}


def scrape(server: MetricsServer) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def until_scraped(server: MetricsServer, seconds: float) -> str:
    until = time.monotonic() + seconds
    while True:
        try:
            return scrape(server)
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_connections_start_no_threads_and_those_beyond_the_bound_are_hung_up_on(request: pytest.FixtureRequest) -> None:
    others = metrics_threads()
    server: MetricsServer = request.getfixturevalue("server")
    own = metrics_threads() - others
    assert len(own) == THREADS + 1
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(MAX_CONNECTIONS + 8)]
        for each in opened[MAX_CONNECTIONS:]:
            each.settimeout(10)
            assert each.recv(1) == b""
        assert metrics_threads() - others == own
    assert "voxplain_serving" in until_scraped(server, 10)
    assert metrics_threads() - others == own


def test_who_says_nothing_is_cut_off_and_the_next_scrape_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "REQUEST_SECONDS", 0.2)
    server = MetricsServer(Metrics(), host="127.0.0.1", port=0)
    try:
        with ExitStack() as stack:
            silent = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(THREADS)]
            for each in silent:
                each.sendall(b"GET /metrics HTTP/1.1\r\nx: ")
                each.settimeout(10)
            # Both threads wait for the rest of a request; the scrape waits for them and not for ever.
            assert "voxplain_serving" in until_scraped(server, 10)
            assert [each.recv(1) for each in silent] == [b""] * THREADS
    finally:
        server.stop()
