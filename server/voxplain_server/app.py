"""The server as a whole: starts everything, says that it is ready, and stops everything. Alone knows every class."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import grpc.aio

from voxplain_server.access import AccessRefused
from voxplain_server.methods import all_methods
from voxplain_server.observe.grpc_metrics import GrpcMetrics
from voxplain_server.observe.inference_pool_watch import InferencePoolWatch
from voxplain_server.observe.ledger_metrics import LedgerMetrics
from voxplain_server.observe.log import Log, route_library_logs
from voxplain_server.observe.metrics import Metrics
from voxplain_server.observe.metrics_server import MetricsServer
from voxplain_server.observe.model_metrics import ModelMetrics
from voxplain_server.observe.pool_watch import PoolWatch
from voxplain_server.observe.tracing import CallTracer, is_tracing_asked_for, open_tracing
from voxplain_server.observe.watch import Watch
from voxplain_server.service.access_control import credentials_of, guard_of
from voxplain_server.service.admission import Admission
from voxplain_server.service.allocator import keep_buffers
from voxplain_server.service.background_threads import start_threads
from voxplain_server.service.case_files import CaseFiles
from voxplain_server.service.catalog import CatalogAnswers
from voxplain_server.service.explain import Explanations
from voxplain_server.service.health import HealthServer
from voxplain_server.service.inference import Inferences
from voxplain_server.service.loop_watch import watch_loop
from voxplain_server.service.scheduling import prefer_throughput
from voxplain_server.service.server import GRPC_LABELS, create_server
from voxplain_server.settings import Settings
from voxplain_server.workers.catalog import Catalog
from voxplain_server.workers.ledger import Ledger
from voxplain_server.workers.pool import WorkerPool
from voxplain_server.workers.pool_settings import PoolSettings
from voxplain_server.workers.reloading import Reloader
from voxplain_server.workers.required_device import DeviceMissing, require_device

VERSION = version("voxplain")
FAREWELL_SECONDS = 3.0
"""What the last events get to leave once the compute has ended."""


class PortTaken(OSError):
    """A port could not be bound; the message names the argument."""


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status: 0 after a clean stop, 1 where it could not start."""
    keep_buffers()
    prefer_throughput()
    try:
        return asyncio.run(_serve(settings))
    except (PortTaken, AccessRefused, DeviceMissing) as refused:
        sys.stderr.write(f"voxplain-server: {refused}\n")
        return 1


async def _serve(settings: Settings) -> int:
    log = Log()
    route_library_logs(log)
    asked = _listen_for_signals()
    start_threads(settings.workers + settings.inference_workers)
    async with AsyncExitStack() as running:
        starting = asyncio.create_task(_start(settings, log, running))
        waiting = asyncio.create_task(asked.get())
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            return 0
        parts = await starting
        await waiting
        log.write("stopping")
        await parts.health.stopping()
        parts.admission.close()
        await _until_first(parts.drain(settings.limits.drain_seconds), asked)
        await parts.server.stop(FAREWELL_SECONDS)
    log.write("stopped")
    return 0


class _Parts:
    """What stopping needs to know of what was started."""

    def __init__(
        self, *, health: HealthServer, admission: Admission, pools: Sequence[WorkerPool], server: grpc.aio.Server
    ) -> None:
        self.health = health
        self.admission = admission
        self.pools = pools
        self.server = server

    async def drain(self, seconds: float) -> None:
        """Let the calls that run end within so many seconds."""
        await asyncio.gather(*(pool.drain(seconds) for pool in self.pools))


async def _start(settings: Settings, log: Log, running: AsyncExitStack) -> _Parts:
    """Start everything in the order of need, leave its end on the stack, and say so on standard output."""
    limits = settings.limits
    metrics = Metrics(max_bytes=limits.max_in_flight_bytes, max_calls=settings.workers + limits.queue_length)
    metrics.build.labels(VERSION).set(1)
    ledger = Ledger()
    LedgerMetrics(ledger, metrics.registry)
    watch = Watch(metrics, log)
    guard, credentials = guard_of(settings.access, watch), credentials_of(settings.access)
    tracer = _tracer(log)
    if tracer is not None:
        running.callback(tracer.close)

    # Now and not in the first call, which would hold up all others.
    all_methods()
    health = HealthServer(watch.health_changed)
    health_port = await _bound(health.start(f"{settings.host}:{settings.health_port}"), "--health-port")
    running.push_async_callback(health.stop)
    try:
        metrics_server = MetricsServer(metrics, host=settings.host, port=settings.metrics_port)
    except OSError:
        raise PortTaken("the port of --metrics-port cannot be bound: choose another") from None
    running.callback(metrics_server.stop)

    await require_device(settings.device)
    files = CaseFiles(ledger)
    running.push_async_callback(files.close)
    if limits.upload_buffer_bytes:
        try:
            await files.keep(limits.upload_buffer_bytes)
        except OSError:
            log.write("no_upload_buffer", level="warning")
    pool_settings = _pool_settings(settings)
    reloader = Reloader(settings.models, settings=pool_settings, changed=partial(_tell_models, log))
    await reloader.fill()
    catalog = reloader.catalog
    ModelMetrics(catalog, metrics.registry)
    observer = PoolWatch(metrics, log, on_failing=health.compute_failing)
    pool = WorkerPool(settings=pool_settings, catalog=catalog, observer=observer, ledger=ledger)
    running.push_async_callback(pool.close)
    await pool.start()

    predictor = pool
    if settings.inference_workers:
        own = replace(pool_settings, workers=settings.inference_workers, preload=False)
        predictor = WorkerPool(settings=own, catalog=catalog, observer=InferencePoolWatch(metrics, log), ledger=ledger)
        running.push_async_callback(predictor.close)
        await predictor.start()

    admission = Admission(
        max_bytes=limits.max_in_flight_bytes,
        workers=settings.workers + settings.inference_workers,
        queue_length=limits.queue_length,
        observer=watch,
        ledger=ledger,
    )
    server = create_server(
        Explanations(
            catalog=catalog,
            runner=pool,
            admission=admission,
            limits=limits,
            observer=watch,
            tracer=tracer,
            ledger=ledger,
            files=files,
        ),
        CatalogAnswers(catalog=catalog, admission=admission, limits=limits, observer=watch),
        Inferences(
            catalog=catalog,
            predictor=predictor,
            admission=admission,
            limits=limits,
            observer=watch,
            is_ready=lambda: health.is_serving,
            version=VERSION,
            ledger=ledger,
        ),
        guard=guard,
        reflection=settings.reflection,
        max_inference_bytes=limits.max_inference_bytes,
        interceptors=[GrpcMetrics(metrics, GRPC_LABELS)],
    )
    address = f"{settings.host}:{settings.port}"
    try:
        port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    except RuntimeError:
        raise PortTaken("the port of --port cannot be bound: choose another") from None
    watching = asyncio.create_task(watch_loop(metrics.loop_lag.observe))
    running.push_async_callback(_end, watching)
    # What is there now stays: a full collection, which stops everything, need not walk over it (40 ms were seen).
    gc.collect()
    gc.freeze()
    await server.start()
    running.push_async_callback(server.stop, 0)
    await health.serving()
    if limits.reload_seconds:
        looking = asyncio.create_task(reloader.keep(limits.reload_seconds))
        running.push_async_callback(_end, looking)
    ready = {
        "ready": True,
        "port": port,
        "health_port": health_port,
        "metrics_port": metrics_server.port,
        "models": sorted({entry.model.name for entry in catalog.entries}),
        "version": VERSION,
    }
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    log.write("ready", models=len(catalog.entries), workers=settings.workers, port=port)
    pools = (pool,) if predictor is pool else (pool, predictor)
    return _Parts(health=health, admission=admission, pools=pools, server=server)


def _tell_models(log: Log, catalog: Catalog) -> None:
    log.write("models_changed", models=len(catalog.entries))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _tracer(log: Log) -> CallTracer | None:
    if not is_tracing_asked_for(os.environ):
        return None
    try:
        return open_tracing(version=VERSION)
    except ImportError:
        # Whoever named a collector must learn why nothing comes; the service itself does not depend on it.
        log.write("tracing_not_installed", level="warning")
        return None


def _pool_settings(settings: Settings) -> PoolSettings:
    limits = settings.limits
    return PoolSettings(
        workers=settings.workers,
        threads_per_worker=settings.threads_per_worker,
        device=settings.device,
        engine=settings.engine,
        cache=settings.cache,
        max_loaded_models=limits.loaded_models,
        # The front lets in so many and no more; the pool's own limit must not be the smaller one.
        queue_limit=limits.queue_length + settings.workers,
        job_seconds=limits.job_seconds,
        checkpoint_bytes=limits.max_checkpoint_bytes,
        checkpoint_key=settings.checkpoint_key,
        check_memory_bytes=limits.check_memory_bytes,
        check_seconds=limits.check_seconds,
        remote=settings.remote,
    )


def _listen_for_signals() -> asyncio.Queue[signal.Signals]:
    """SIGTERM and SIGINT, as they come: the first asks to stop, a second not to wait for anybody."""
    asked: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, asked.put_nowait, each)
    return asked


async def _until_first(work: Coroutine[Any, Any, None], asked: asyncio.Queue[signal.Signals]) -> None:
    tasks: set[asyncio.Task[Any]] = {asyncio.create_task(work), asyncio.create_task(asked.get())}
    _, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _bound(start: Coroutine[Any, Any, int], argument: str) -> int:
    try:
        return await start
    except RuntimeError:
        raise PortTaken(f"the port of {argument} cannot be bound: choose another") from None
