"""Memory of the whole process tree while methods run on 4 x 128^3: it must not grow with steps, samples or windows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from voxplain.v1 import explain_pb2, method_pb2
from voxplain_client import Client

from tests.benchmarks import vgg_like
from tests.benchmarks.bounds import figure
from tests.benchmarks.figure import Figure
from tests.benchmarks.process_tree import MIB, watched
from tests.serving import RunningServer

EDGE = 128


def measure() -> Iterator[Figure]:
    """Peaks of integrated gradients by steps, and of occlusion by evaluations."""
    with tempfile.TemporaryDirectory() as scratch:
        vgg_like.write_bundle(Path(scratch), EDGE)
        few, many = (_peak(Path(scratch), _integrated_gradients(steps), None) for steps in (10, 50))
        yield figure("memory/integrated_gradients_worker", many / MIB, "MiB", "50 steps, PSS of the server's process tree")
        yield figure("memory/steps_50_over_steps_10", many / few, "x")
        occlusion = method_pb2.Method(occlusion=method_pb2.Occlusion())
        few, many = (_peak(Path(scratch), occlusion, evaluations) for evaluations in (32, 128))
        yield figure("memory/occlusion_windows_x4", many / few, "x", f"{few / MIB:.0f} MiB with 32 windows")


def _integrated_gradients(steps: int) -> method_pb2.Method:
    return method_pb2.Method(integrated_gradients=method_pb2.IntegratedGradients(steps=steps))


def _peak(models: Path, method: method_pb2.Method, most: int | None) -> int:
    budget = explain_pb2.Budget(max_evaluations=most) if most else None
    with RunningServer(models) as server, Client(server.address) as client, watched(server.pid) as peak:
        with client.explain(model="vgg-like", volumes=vgg_like.case(EDGE), methods=[method], budget=budget) as explanation:
            explanation.result()
        return peak.bytes
