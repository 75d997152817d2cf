"""Rows about what dies: workers, the front, and a server that is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from voxplain.v1 import explain_pb2
from voxplain_client import Client
from voxplain_server.workers.checking import check_models
from voxplain_server.workers.events import SilentObserver
from voxplain_server.workers.job import Job
from voxplain_server.workers.pool import WorkerPool
from voxplain_server.workers.pool_settings import PoolSettings

from tests.benchmarks.process_tree import tree_of
from tests.oracle import memory_files, settle
from tests.server.workers.calling import Answer, job, run
from tests.serving import RunningServer
from tests.stress.caller import Told, begin, case_of, finish, occlusion, warm_up
from tests.stress.models import tiny_bundle
from tests.stress.row import Row, Scale, milliseconds, percentile

WORKER_LOSSES, FRONT_LOSSES, DRAINS = 100, 10, 50
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)
SILENCE_SECONDS = 2.0
START_SECONDS = 3.0
SMALL = explain_pb2.Execution(batch_size=4, block_size=16)
DRAIN_SECONDS = 3.0
KEY = {"VOXPLAIN_CHECKPOINT_KEY": "a-key-of-the-stress-run-0123456789abcdef"}
SETTINGS = ("--engine", "onnxruntime", "--threads-per-worker", "1", "--reload-seconds", "0")


def lose_workers(scale: Scale) -> list[Row]:
    """Kill leads in the middle of a call while another call runs."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_lose_workers(Path(folder), scale.of(WORKER_LOSSES, least=len(SIGNALS))))


async def _lose_workers(models: Path, count: int) -> list[Row]:
    bundle, rng, files = tiny_bundle(models), np.random.default_rng(9), memory_files()
    settings = PoolSettings(
        workers=2, engine="onnxruntime", preload=False, progress_s=0.005, checkpoint_s=0.5, silence_s=SILENCE_SECONDS
    )
    catalog = await check_models(models, settings=settings)
    crew = _CrewWatch()
    pool = WorkerPool(settings=settings, catalog=catalog, observer=crew)
    await pool.start()
    wrong, lost, back = 0, 0, []
    try:
        async with (
            job(bundle, catalog, [occlusion(4, 2)], execution=SMALL) as asked,
            job(bundle, catalog, [occlusion(5, 2)], execution=SMALL) as other,
        ):
            await _all_idle(pool)
            whole, beside = await run(pool, asked), await run(pool, other)
            most = whole.results["occlusion"].evaluations_planned // 2
            for number in range(count):
                await _all_idle(pool)
                how = SIGNALS[number % len(SIGNALS)]
                bystander = asyncio.create_task(run(pool, other))
                while len(pool.leading_pids) < 1:
                    await asyncio.sleep(0.002)
                killed, answer = await _run_and_kill(pool, asked, how, after=int(rng.integers(1, most)))
                lost += killed is not None
                wrong += answer.bytes_by_map != whole.bytes_by_map
                wrong += (await bystander).bytes_by_map != beside.bytes_by_map
                if killed is not None:
                    allowance = SILENCE_SECONDS + 1.0 if how is signal.SIGSTOP else 0.0
                    await _all_idle(pool)
                    back.append(crew.whole_again(killed) - allowance)
            await _all_idle(pool)
            await settle(pool.ledger, files=files + 2)
    finally:
        await pool.close()
    start = await _start_seconds(settings)
    return [
        Row(
            what="workers lost under load (SIGKILL, SIGSEGV, SIGSTOP in turn)",
            count=str(lost),
            goal="final maps of the call and of the one beside it equal bit for bit to undisturbed ones",
            figure=f"{wrong} maps differ",
            passed=wrong == 0 and lost == count,
            remark=f"a silent worker counts as lost after {SILENCE_SECONDS:.0f} s here, after 300 s by default",
        ),
        Row(
            what="a new worker after a loss",
            count=str(lost),
            goal=f"up within {START_SECONDS:.0f} s + start of a worker ({start:.1f} s here)",
            figure=f"p99 {percentile(back, 0.99):.1f} s",
            passed=percentile(back, 0.99) <= START_SECONDS + start,
        ),
    ]


async def _run_and_kill(pool: WorkerPool, asked: Job, how: signal.Signals, *, after: int) -> tuple[float | None, Answer]:
    """Run a job and kill its lead after some evaluations; when that was, None where it never was."""
    answer, killed = Answer(), None
    before = set(pool.leading_pids)
    async for event in pool.run(asked):
        answer.take(event)
        if killed is None and isinstance(event, explain_pb2.Progress) and event.evaluations_done >= after:
            for pid in set(pool.leading_pids) - before:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)
                    killed = time.monotonic()
    return killed, answer


async def _all_idle(pool: WorkerPool) -> None:
    async with asyncio.timeout(90):
        while len(pool.idle_pids) < 2:
            await asyncio.sleep(0.005)


class _CrewWatch(SilentObserver):
    """Remembers when how many workers were up."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def workers(self, *, ready: int, failing: bool) -> None:
        """So many are up now."""
        self._seen.append((time.monotonic(), ready))

    def whole_again(self, since: float) -> float:
        """Seconds from a loss until two were up again."""
        missed = next(at for at, ready in self._seen if at >= since and ready < 2)
        return next(at for at, ready in self._seen if at >= missed and ready == 2) - since


async def _start_seconds(settings: PoolSettings) -> float:
    from voxplain_server.workers.worker import Worker

    began, worker = time.monotonic(), Worker(settings.worker_start)
    await worker.ready
    took = time.monotonic() - began
    await worker.end()
    return took


def lose_front(scale: Scale) -> list[Row]:
    """Kill the front while a client waits, and start it again on its port."""
    orphans, resumed, count = 0, 0, scale.of(FRONT_LOSSES)
    with tempfile.TemporaryDirectory() as folder:
        bundle = tiny_bundle(Path(folder))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        arguments = (*SETTINGS, "--port", str(port))
        wanted: bytes | None = None
        for _ in range(count):
            server = RunningServer(bundle.models, arguments, KEY)
            server.start()
            warm_up(server, bundle)
            if wanted is None:
                wanted = _explain(server.address, bundle.name, bundle.volumes(), threading.Event())
            computing, told = threading.Event(), list[bytes]()
            thread = threading.Thread(
                target=lambda told=told, computing=computing, address=server.address: told.append(
                    _explain(address, bundle.name, bundle.volumes(), computing)
                )
            )
            thread.start()
            computing.wait(60)
            tree = tree_of(server.pid)
            os.kill(server.pid, signal.SIGKILL)
            time.sleep(2.0)
            orphans += sum(_is_alive(pid) for pid in tree[1:])
            server.stop()
            with RunningServer(bundle.models, arguments, KEY):
                thread.join(120)
            resumed += told == [wanted]
    return [
        Row(
            what="the front killed (SIGKILL) while computing",
            count=str(count),
            goal="no orphan after 2 s; the Python client goes on by itself and has the same map",
            figure=f"{orphans} orphans; {resumed} of {count} went on to the same bytes",
            passed=orphans == 0 and resumed == count,
        )
    ]


def _explain(address: str, model: str, volumes: dict[str, np.ndarray], computing: threading.Event) -> bytes:
    with (
        Client(address) as client,
        client.explain(model=model, volumes=volumes, methods=[occlusion(3, 1)]) as explanation,
    ):
        for event in explanation:
            if isinstance(event, explain_pb2.Progress) and event.evaluations_done > 0:
                computing.set()
        maps = explanation.result().maps["occlusion"]
        return b"".join(maps[name].array.tobytes() for name in sorted(maps))


def _is_alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def drain(scale: Scale) -> list[Row]:
    """SIGTERM while a short and a long call compute."""
    count = scale.of(DRAINS)
    served, drained, clean, unhealthy = 0, 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        bundle = tiny_bundle(Path(folder))
        for _ in range(count):
            arguments = (*SETTINGS, "--workers", "2", "--drain-seconds", str(DRAIN_SECONDS))
            server = RunningServer(bundle.models, arguments, KEY)
            server.start()
            warm_up(server, bundle)
            with grpc.insecure_channel(server.address) as channel, grpc.insecure_channel(server.health_address) as health:
                short = _Reader(begin(channel, case_of(bundle, [occlusion(5, 3)], execution=SMALL)))
                long = _Reader(begin(channel, case_of(bundle, [occlusion(1, 1)], execution=SMALL)))
                for reader in (short, long):
                    reader.computing.wait(60)
                stub = health_pb2_grpc.HealthStub(health)
                stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
                server.send(signal.SIGTERM)
                unhealthy.append(_until_unhealthy(stub))
                told, left = short.told(), long.told()
            clean += server.wait() == 0
            server.stop()
            served += told.kinds[-1:] == ["summary"] and told.results["occlusion"].outcome == explain_pb2.OUTCOME_COMPLETED
            drained += (
                "occlusion" in left.results
                and left.results["occlusion"].outcome == explain_pb2.OUTCOME_DRAINED
                and bool(left.checkpoint)
            )
    p99 = percentile(unhealthy, 0.99)
    return [
        Row(
            what="SIGTERM under load",
            count=str(count),
            goal="calls that fit the grace end well, others DRAINED with a checkpoint; exit 0; NOT_SERVING within 100 ms",
            figure=f"{served} served, {drained} drained, {clean} clean exits of {count}; NOT_SERVING p99 {milliseconds(p99)}",
            passed=served == drained == clean == count and p99 <= 0.1,
        )
    ]


class _Reader:
    """Reads a call in a thread and tells when it computes."""

    def __init__(self, call: object) -> None:
        self.computing = threading.Event()
        self._told: list[Told] = []
        self._thread = threading.Thread(target=self._read, args=(call,))
        self._thread.start()

    def told(self) -> Told:
        """What it has brought, once it has ended."""
        self._thread.join(120)
        return self._told[0]

    def _read(self, call: object) -> None:
        self._told.append(finish(call, on_event=self._look))

    def _look(self, event: explain_pb2.ExplainResponse) -> None:
        if event.progress.evaluations_done > 0 or event.HasField("method_result"):
            self.computing.set()


def _until_unhealthy(stub: health_pb2_grpc.HealthStub) -> float:
    began = time.monotonic()
    while time.monotonic() - began < 10:
        try:
            if stub.Check(health_pb2.HealthCheckRequest(), timeout=1).status != health_pb2.HealthCheckResponse.SERVING:
                break
        except grpc.RpcError:
            break
    return time.monotonic() - began
