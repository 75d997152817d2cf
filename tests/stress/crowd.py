"""Many whole cases at once: the front's memory stays within what it admits, the rest waits or is told when to come again."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from voxplain.v1 import explain_pb2, method_pb2

from tests.oracle import settle_server
from tests.serving import RunningServer
from tests.stress.caller import EXPLAIN, Told, case_of, finish
from tests.stress.models import WHOLE_CASE, wide_bundle
from tests.stress.row import Row, Scale, mib, milliseconds, percentile
from tests.stress.watching import watched

CLIENTS, ADMITTED = 64, 8
FRONT_BYTES = int(2.5 * 2**30)
REFUSAL_SECONDS = 0.05
PATIENCE_SECONDS = 1800.0
NICENESS = 10
"""Of the crowd, which would be on other machines: it has what processors the server leaves."""
_BUCKET = re.compile(r'^(voxplain_[a-z_]+)_bucket\{le="([^"]+)"\} ([-+0-9.e]+)$', re.MULTILINE)


@dataclass(slots=True)
class Crowd:
    """What happened to all.

    Attributes:
        refused: times that a client was told to come again.
        odd: refusals without RetryInfo, or of another kind.
        served: calls that had their record.
    """

    refused: int = 0
    odd: list[str] = field(default_factory=list)
    served: int = 0


def crowd(scale: Scale) -> list[Row]:
    """Let them all come at once, and come again when they are told to."""
    clients = scale.of(CLIENTS, least=2 * ADMITTED)
    with tempfile.TemporaryDirectory() as folder:
        bundle = wide_bundle(Path(folder))
        arguments = ("--engine", "onnxruntime", "--queue-length", str(ADMITTED - 1), "--reload-seconds", "0")
        with RunningServer(bundle.models, (*arguments, "--max-in-flight-bytes", str(8 << 30))) as server:
            with _process("beside", server.address) as beside:
                with watched(server) as seen, _process("crowd", server.address, str(clients)) as coming:
                    said, _ = coming.communicate(timeout=2 * PATIENCE_SECONDS)
                    crowded = Crowd(**json.loads(said))
                lines, _ = beside.communicate(timeout=60)
                refusals = [float(line) for line in lines.split()]
            settle_server(server.metrics_url, server.pid)
            within, lag = _below(server, "voxplain_refusal_seconds"), _below(server, "voxplain_event_loop_lag_seconds")
    p99 = percentile(refusals, 0.99)
    return [
        Row(
            what="clients with a whole case of 136 MiB at once, tiny model",
            count=str(clients),
            goal=f"front and its memory files <= 2.5 GiB with {ADMITTED} admitted; refused with RetryInfo within 50 ms p99; "
            "all served in the end",
            figure=f"{mib(seen.peak_bytes)}; {len(refusals)} refusals of a client beside them, p50 "
            f"{milliseconds(percentile(refusals, 0.5))}, p99 {milliseconds(p99)}; {crowded.refused} of the crowd, "
            f"{len(crowded.odd)} of another kind; in the front's own books {100 * within:.2f} % of all refusals within 50 ms, "
            f"its event loop late by no more in {100 * lag:.2f} %; {crowded.served} of {clients} served",
            passed=seen.peak_bytes <= FRONT_BYTES
            and p99 <= REFUSAL_SECONDS
            and within >= 0.99
            and not crowded.odd
            and crowded.served == clients,
            remark=f"the crowd has niceness {NICENESS}, the client beside it none: both share the server's processors",
        )
    ]


def _process(part: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.stress.crowd", part, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _below(server: RunningServer, histogram: str) -> float:
    """Share of a histogram that is not above what a refusal may take; 0 where it is empty."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as page:
        buckets = {bound: float(count) for name, bound, count in _BUCKET.findall(page.read().decode()) if name == histogram}
    return buckets[str(REFUSAL_SECONDS)] / max(buckets["+Inf"], 1.0)


def _messages() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        bundle = wide_bundle(Path(folder))
    rng = np.random.default_rng(3)
    volumes = {name: rng.random(WHOLE_CASE, dtype=np.float32) for name in bundle.modalities}
    window = method_pb2.Method(occlusion=method_pb2.Occlusion(window=WHOLE_CASE, stride=WHOLE_CASE))
    return case_of(bundle, [window], volumes=volumes)


def _come_all(address: str, clients: int) -> None:
    """Be the crowd, and write what has happened to it."""
    os.nice(NICENESS)
    messages, crowded, lock = _messages(), Crowd(), threading.Lock()
    with ThreadPoolExecutor(clients) as callers:
        for each in [callers.submit(_come, address, messages, crowded, lock) for _ in range(clients)]:
            each.result()
    sys.stdout.write(json.dumps(asdict(crowded)))


def _come(address: str, messages: Sequence[bytes], crowded: Crowd, lock: threading.Lock) -> None:
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(60)
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            accepted, over = threading.Event(), threading.Event()

            def requests(accepted: threading.Event = accepted, over: threading.Event = over) -> Iterator[bytes]:
                yield messages[0]
                while not accepted.wait(0.1) and not over.is_set():
                    pass
                if accepted.is_set():
                    yield from messages[1:]

            def look(event: explain_pb2.ExplainResponse, accepted: threading.Event = accepted) -> None:
                if event.HasField("accepted"):
                    accepted.set()

            method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(EXPLAIN)
            told = finish(method(requests(), timeout=PATIENCE_SECONDS), on_event=look)
            over.set()
            with lock:
                if told.record is not None:
                    crowded.served += 1
                    return
                if told.code is not grpc.StatusCode.RESOURCE_EXHAUSTED or told.retry_s is None:
                    crowded.odd.append(f"{told.code.name} {told.reason}")
                    return
                crowded.refused += 1
            time.sleep(told.retry_s)


def _ask_beside(address: str, message: bytes) -> None:
    """Ask for a place twice a second and write what each refusal took, until standard input ends."""
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(60)
        while not select.select([sys.stdin], [], [], 0.5)[0]:
            began = time.monotonic()
            method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(EXPLAIN)
            call = method(iter([message]), timeout=60)
            told = Told()
            for answer in _until_first(call, told):
                # There was a place: it is given back at once.
                answer.cancel()
            if told.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                sys.stdout.write(f"{time.monotonic() - began}\n")
                sys.stdout.flush()


def _until_first(call: Any, told: Told) -> Iterator[Any]:
    try:
        next(call)
        yield call
    except grpc.RpcError:
        told.code = call.code()


if __name__ == "__main__":
    if sys.argv[1] == "crowd":
        _come_all(sys.argv[2], int(sys.argv[3]))
    else:
        _ask_beside(sys.argv[2], _messages()[0])
