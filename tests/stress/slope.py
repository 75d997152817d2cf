"""Whether a server grows with the calls that it has served."""

from __future__ import annotations

import tempfile
from pathlib import Path

import grpc
import numpy as np
from voxplain.v1 import method_pb2

from tests.oracle import descriptors, settle_server, threads
from tests.serving import RunningServer
from tests.stress.caller import begin, case_of, finish, occlusion, warm_up
from tests.stress.models import tiny_bundle
from tests.stress.row import Row, Scale
from tests.stress.watching import front_bytes

CALLS = 2_000
SAMPLES = 40
MIB_PER_THOUSAND = 2.0


def repeat(scale: Scale) -> list[Row]:
    """Good, refused, cancelled and broken calls, one after another."""
    count = scale.of(CALLS, least=SAMPLES)
    sizes, places, open_files, running = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        bundle = tiny_bundle(Path(folder))
        arguments = ("--engine", "onnxruntime", "--threads-per-worker", "1", "--reload-seconds", "0")
        gradient = method_pb2.Method(gradient=method_pb2.Gradient())
        good = case_of(bundle, [occlusion(8, 7), gradient])
        kinds = (good, case_of(bundle, [gradient]), [*good[:-1], b"\xff"], [b"\x0a\x02\x12\x00"])
        with RunningServer(Path(folder), arguments) as server, grpc.insecure_channel(server.address) as channel:
            warm_up(server, bundle)
            for number in range(count):
                call = begin(channel, kinds[number % len(kinds)])
                if number % 10 == 9:
                    call.cancel()
                finish(call)
                if number % max(count // SAMPLES, 1) == 0:
                    settle_server(server.metrics_url, server.pid)
                    places.append(number)
                    sizes.append(front_bytes(server.pid) / 2**20)
                    open_files.append(descriptors(server.pid))
                    running.append(threads(server.pid))
    half = len(places) // 4
    slope = float(np.polyfit(places[half:], sizes[half:], 1)[0]) * 1000
    return [
        Row(
            what="memory of the front over mixed calls",
            count=f"{count:,}",
            goal=f"slope <= {MIB_PER_THOUSAND:.0f} MiB per 1,000 calls; descriptors and threads flat",
            figure=f"{slope:+.2f} MiB per 1,000; descriptors {open_files[half]} -> {open_files[-1]}, "
            f"threads {running[half]} -> {running[-1]}",
            passed=slope <= MIB_PER_THOUSAND and open_files[-1] <= open_files[half] + 2 and running[-1] <= running[half] + 1,
            remark="the slope is of the last three quarters, after the server has met every kind of call",
        )
    ]
