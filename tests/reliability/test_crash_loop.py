"""Workers that end as soon as they start: health tells it, and tells when they stay."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from tests.benchmarks.process_tree import tree_of
from tests.serving import RunningServer
from tests.stress.caller import warm_up
from tests.stress.models import tiny_bundle

PATIENCE_SECONDS = 90.0
KILL_EVERY_SECONDS = 0.02
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_health_falls_when_every_worker_ends_at_its_start_and_rises_when_they_stay(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    arguments = ("--engine", "onnxruntime", "--threads-per-worker", "1", "--reload-seconds", "0")
    with RunningServer(bundle.models, arguments) as server, grpc.insecure_channel(server.health_address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert _status(health) == SERVING
        with _no_worker_lives(server.pid):
            _until(health, NOT_SERVING)
        _until(health, SERVING)
        # And what it says is true: a call is served to its end.
        warm_up(server, bundle)
        log = server.log
    for event in ("compute_failing", "compute_recovered"):
        assert f'"event": "{event}"' in log


def _status(health: health_pb2_grpc.HealthStub) -> int:
    return int(health.Check(health_pb2.HealthCheckRequest(), timeout=10).status)


def _until(health: health_pb2_grpc.HealthStub, wanted: int) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while _status(health) != wanted:
        assert time.monotonic() < until, "health did not change in time"
        time.sleep(0.1)


@contextmanager
def _no_worker_lives(front: int) -> Iterator[None]:
    over = threading.Event()

    def kill() -> None:
        while not over.wait(KILL_EVERY_SECONDS):
            for pid in tree_of(front)[1:]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
