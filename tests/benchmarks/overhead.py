"""What the server adds: the demo case over gRPC against the same method run in one process, without any of it."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from voxplain.volume import Volume
from voxplain_client import Client
from voxplain_server.workers.process import worker_environment

from tests.benchmarks.bounds import figure
from tests.benchmarks.figure import Figure
from tests.benchmarks.in_process import CASE, MODELS, THREADS, read_case
from tests.serving import RunningServer

RUNS = 5
DENSE = ("--engine", "onnxruntime")
"""The engine that in_process uses: a ratio against less work would say nothing."""


def measure() -> Iterator[Figure]:
    """LIME (seconds of compute) by ratio, gradient (a fraction of a second) by difference."""
    volumes = read_case(CASE)
    with RunningServer(MODELS, DENSE) as server, Client(server.address) as client:
        seconds: dict[str, list[float]] = {"lime": [], "gradient": []}
        bare: dict[str, list[float]] = {"lime": [], "gradient": []}
        for name in seconds:
            # What is loaded once is loaded before; so does `in_process`.
            _call(client, volumes, name)
        for _ in range(RUNS):
            alone = _in_process(*seconds)
            for name, runs in seconds.items():
                runs.append(_call(client, volumes, name))
                bare[name].append(alone[name])
    call, bare_call = statistics.median(seconds["lime"]), statistics.median(bare["lime"])
    told = f"{call:.2f} s against {bare_call:.2f} s, medians of {RUNS}"
    yield figure("overhead/lime_call_vs_in_process", call / bare_call, "x", told)
    call, bare_call = statistics.median(seconds["gradient"]), statistics.median(bare["gradient"])
    told = f"{call:.3f} s against {bare_call:.3f} s, medians of {RUNS}"
    yield figure("overhead/gradient_call_over_in_process", call - bare_call, "s", told)


def _call(client: Client, volumes: dict[str, Volume], name: str) -> float:
    start = time.perf_counter()
    with client.explain(model="glioma-demo", volumes=volumes, methods=[name]) as explanation:
        explanation.result()
    return time.perf_counter() - start


def _in_process(*methods: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.in_process", *methods]
    told = subprocess.run(command, env=worker_environment(THREADS, os.environ), check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return found
