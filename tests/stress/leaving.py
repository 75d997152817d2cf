"""Clients that leave: by a cancel, by a deadline, by being killed, or without a word."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import numpy as np
from google.protobuf import duration_pb2
from voxplain.v1 import explain_pb2, method_pb2

from tests.bundles import TinyBundle
from tests.oracle import held_by, settle_server
from tests.serving import RunningServer
from tests.stress.caller import begin, case_of, finish, occlusion
from tests.stress.raw_client import raw_client
from tests.stress.row import Row, Scale, milliseconds, percentile

CANCELS, KILLS, DEADLINES = 500, 50, 50
BATCH_SECONDS = 0.05
"""Allowance for one batch of the tiny model, which takes a few milliseconds on a quiet core."""
KEEPALIVE_SECONDS = 30.0 + 10.0
SMALL_BLOCKS = explain_pb2.Execution(batch_size=4, block_size=8)


def cancel_at_random(server: RunningServer, bundle: TinyBundle, scale: Scale) -> list[Row]:
    """Cancel calls at random times and see how soon the server is at rest."""
    rng, count = np.random.default_rng(5), scale.of(CANCELS)
    messages = case_of(bundle, [occlusion(3, 1)], execution=SMALL_BLOCKS)
    rests = []
    with grpc.insecure_channel(server.address) as channel:
        for _ in range(count):
            call = begin(channel, messages)
            time.sleep(float(rng.uniform(0.0, 0.25)))
            call.cancel()
            rests.append(settle_server(server.metrics_url, server.pid))
    goal = BATCH_SECONDS + 0.25
    p99 = percentile(rests, 0.99)
    return [
        Row(
            what="cancelled at random points",
            count=str(count),
            goal=f"worker idle within a batch + 250 ms p99 ({milliseconds(goal)}); books even within 1 s",
            figure=f"p99 {milliseconds(p99)}, most {milliseconds(max(rests))}, of both together",
            passed=p99 <= goal and max(rests) <= 1.0,
            remark="the time ends when the worker has answered, every book is even and no memory file is open",
        )
    ]


def pass_deadlines(server: RunningServer, bundle: TinyBundle, scale: Scale) -> list[Row]:
    """Deadlines in the middle of the compute, refused ones, and soft ones."""
    count = scale.of(DEADLINES)
    late, refused, kept, overdue = [], 0, 0, []
    long = [method_pb2.Method(shapley_value_sampling=method_pb2.ShapleyValueSampling(permutations=2_000))]
    running = case_of(bundle, [occlusion(1, 1)], execution=SMALL_BLOCKS, budget=explain_pb2.Budget(target_standard_error=1e-12))
    allowed = case_of(bundle, long, budget=explain_pb2.Budget(soft_deadline=duration_pb2.Duration(seconds=3600)))
    with grpc.insecure_channel(server.address) as channel:
        for _ in range(count):
            told = finish(begin(channel, running, timeout_s=0.5))
            assert told.code is grpc.StatusCode.DEADLINE_EXCEEDED, told.code
            late.append(settle_server(server.metrics_url, server.pid))
            refused += finish(begin(channel, case_of(bundle, long), timeout_s=2.0)).reason == "DEADLINE_TOO_SHORT"
        for _ in range(max(count // 5, 1)):
            began = time.monotonic()
            told = finish(begin(channel, allowed, timeout_s=3.0))
            overdue.append(time.monotonic() - began)
            result = told.results.get("shapley-value-sampling")
            kept += (
                told.code is grpc.StatusCode.OK
                and result is not None
                and result.outcome == explain_pb2.OUTCOME_DEADLINE
                and result.HasField("standard_error")
                and len(told.maps) > 0
            )
    goal = BATCH_SECONDS + 0.15
    return [
        Row(
            what="deadlines passed in the middle",
            count=str(count),
            goal=f"work past the deadline <= a batch + 150 ms p99 ({milliseconds(goal)})",
            figure=f"p99 {milliseconds(percentile(late, 0.99))} from the client's end of the call to books even",
            passed=percentile(late, 0.99) <= goal,
            remark="supervoxels are made in one step: a deadline that passes in it is seen after it (up to 1.5 s were seen)",
        ),
        Row(
            what="deadlines shorter than the estimate",
            count=f"{count} refused, {len(overdue)} allowed",
            goal="refused unstarted; or, with a soft deadline, in time with map, error and outcome DEADLINE",
            figure=f"{refused} refused; {kept} of {len(overdue)} in time, the latest after {max(overdue):.2f} s of 3 s",
            passed=refused == count and kept == len(overdue),
        ),
    ]


def kill_clients(server: RunningServer, bundle: TinyBundle, scale: Scale) -> list[Row]:
    """Clients that are killed in the middle."""
    count, freed = scale.of(KILLS), []
    for _ in range(count):
        with _client_process(server, bundle) as process:
            process.kill()
            process.wait()
            freed.append(settle_server(server.metrics_url, server.pid))
    return [
        Row(
            what="clients killed (SIGKILL) while computing",
            count=str(count),
            goal="all freed <= 500 ms",
            figure=f"p99 {milliseconds(percentile(freed, 0.99))}, most {milliseconds(max(freed))}",
            passed=max(freed) <= 0.5,
        )
    ]


def silence_clients(server: RunningServer, bundle: TinyBundle) -> list[Row]:
    """A client that is stopped, and a connection of which only our half is open."""
    bound = KEEPALIVE_SECONDS + 5.0
    with _client_process(server, bundle) as process:
        process.send_signal(signal.SIGSTOP)
        stopped = _until_free(server, bound + 20)
        process.kill()
        process.wait()
    with _freezing_relay(server.address) as (address, freeze), grpc.insecure_channel(address) as channel:
        call = begin(channel, case_of(bundle, [occlusion(1, 1)], execution=explain_pb2.Execution(batch_size=1)))
        _until_computing(call)
        freeze.set()
        half_open = _until_free(server, bound + 20)
        call.cancel()
    goal = f"freed <= keepalive + timeout ({bound:.0f} s with 5 s of slack)"
    return [
        Row("a stopped client (SIGSTOP)", "1", goal, f"{stopped:.1f} s", stopped <= bound),
        Row("a half-open connection", "1", goal, f"{half_open:.1f} s", half_open <= bound),
    ]


def never_read(server: RunningServer, bundle: TinyBundle, *, stall_s: float) -> list[Row]:
    """A client that opens no window for what the server has to say: 240 maps wait for it."""
    methods = [method_pb2.Method(key=f"m{number}", gradient=method_pb2.Gradient()) for number in range(60)]
    messages = case_of(bundle, methods)
    most = 0
    with raw_client(server.address) as client:
        stream = client.open()
        for message in messages:
            client.send(stream, b"\x00" + len(message).to_bytes(4, "big") + message)
        until = time.monotonic() + stall_s + 60
        freed = False
        while time.monotonic() < until and not freed:
            held = held_by(server.metrics_url)
            most = max(most, held.get("map_files", 0))
            freed = most > 0 and not held
            time.sleep(0.05)
    return [
        Row(
            what="a client that never reads",
            count="1 call, 240 maps",
            goal="<= 20 maps held; dropped after --send-stall-seconds",
            figure=f"at most {most} maps held; {'dropped' if freed else 'still held'}",
            passed=freed and most <= 20,
        )
    ]


def _until_free(server: RunningServer, seconds: float) -> float:
    return settle_server(server.metrics_url, server.pid, seconds=seconds)


def _until_computing(call: object) -> None:
    for message in call:  # type: ignore[attr-defined]
        event = explain_pb2.ExplainResponse.FromString(message)
        if event.progress.stage == explain_pb2.Progress.STAGE_COMPUTING:
            return
    raise AssertionError("the call ended before it computed")


@contextmanager
def _client_process(server: RunningServer, bundle: TinyBundle) -> Iterator[subprocess.Popen[bytes]]:
    """A process that computes the longest case and has begun to."""
    command = [sys.executable, "-m", "tests.stress.leaving", server.address]
    messages = case_of(bundle, [occlusion(1, 1)], execution=explain_pb2.Execution(batch_size=1))
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if process.stdin is not None:
        process.stdin.write(b"".join(len(each).to_bytes(4, "big") + each for each in messages))
        process.stdin.close()
    try:
        line = process.stdout.readline() if process.stdout is not None else b""
        assert line == b"computing\n", line
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def _freezing_relay(address: str) -> Iterator[tuple[str, threading.Event]]:
    """A TCP relay that, once told, forwards nothing more and closes nothing."""
    host, _, port = address.rpartition(":")
    freeze, listener = threading.Event(), socket.create_server(("127.0.0.1", 0))
    sockets = [listener]

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if freeze.is_set():
                    return
                sink.sendall(data)
        except OSError:
            return

    def accept() -> None:
        try:
            inner, _ = listener.accept()
        except OSError:
            return
        outer = socket.create_connection((host, int(port)))
        sockets.extend((inner, outer))
        for source, sink in ((inner, outer), (outer, inner)):
            threading.Thread(target=pump, args=(source, sink), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", freeze
    finally:
        for each in sockets:
            each.close()


def _be_a_client(address: str, messages: list[bytes]) -> None:
    with grpc.insecure_channel(address) as channel:
        call = begin(channel, messages)
        _until_computing(call)
        sys.stdout.write("computing\n")
        sys.stdout.flush()
        finish(call)


def _read_messages() -> list[bytes]:
    messages = []
    while head := sys.stdin.buffer.read(4):
        messages.append(sys.stdin.buffer.read(int.from_bytes(head, "big")))
    return messages


if __name__ == "__main__":
    _be_a_client(sys.argv[1], _read_messages())
