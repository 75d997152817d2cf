"""Metrics have names that operators can rely on, and labels that cannot grow without bound."""

from __future__ import annotations

import subprocess
import urllib.request
from dataclasses import replace
from io import StringIO

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from voxplain.v1 import catalog_pb2, explain_pb2
from voxplain_server.methods import all_methods
from voxplain_server.observe.grpc_metrics import UNKNOWN
from voxplain_server.observe.log import Log
from voxplain_server.observe.metrics import MOST_SERIES, Metrics
from voxplain_server.observe.metrics_server import MetricsServer
from voxplain_server.observe.model_metrics import ModelMetrics
from voxplain_server.observe.pool_watch import PoolWatch
from voxplain_server.observe.watch import Watch
from voxplain_server.service.server import GRPC_LABELS
from voxplain_server.workers.catalog import Catalog, Refusal
from voxplain_server.workers.events import PoolObserver

from tests.server.service.front import entry, model
from tests.tools import tool

NAMES = [
    "grpc_server_started_total",
    "grpc_server_handled_total",
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
    "grpc_server_handling_seconds",
    "voxplain_explanations_total",
    "voxplain_explanation_duration_seconds",
    "voxplain_time_to_first_snapshot_seconds",
    "voxplain_queue_wait_seconds",
    "voxplain_queue_length",
    "voxplain_inflight_explanations",
    "voxplain_evaluations_total",
    "voxplain_evaluations_saved_total",
    "voxplain_evaluation_batch_size",
    "voxplain_received_bytes_total",
    "voxplain_sent_bytes_total",
    "voxplain_admitted_bytes",
    "voxplain_refusal_seconds",
    "voxplain_event_loop_lag_seconds",
    "voxplain_admission_rejections_total",
    "voxplain_cancel_to_stop_seconds",
    "voxplain_worker_restarts_total",
    "voxplain_model_parity_ratio",
    "voxplain_model_info",
    "voxplain_build_info",
]


def metrics_with_models(names: int = 1) -> Metrics:
    """Metrics of a server with so many models."""
    metrics = Metrics(max_bytes=1 << 30, max_calls=8)
    metrics.build.labels("1").set(1)
    refused = Refusal("broken", catalog_pb2.RefusedVersion(version="1", reason="ONNX_INVALID", description="export again"))
    ModelMetrics(Catalog([entry(model(f"model-{number}")) for number in range(names)], [refused]), metrics.registry)
    return metrics


def series(metrics: Metrics) -> int:
    """Lines of a scrape that hold a value."""
    return sum(not line.startswith("#") for line in generate_latest(metrics.registry).decode().splitlines())


def storm(metrics: Metrics) -> None:
    """More label values than any server has: of every kind that a client, a model or a fault could bring."""
    watch, pool = Watch(metrics, Log(StringIO())), PoolWatch(metrics, Log(StringIO()))
    methods = [*all_methods(), *(f"strange-{number}" for number in range(20))]
    for number in range(40):
        for outcome in explain_pb2.Outcome.values():
            for method in methods:
                result = explain_pb2.MethodResult(outcome=outcome, reason=f"REASON_{number}")
                watch.method_ended(method=method, model=f"model-{number}", result=result)
        for ending in ("completed", "cancelled", "drained", "failed"):
            watch.call_ended(
                explanation_id="x",
                model=f"model-{number}",
                version="1",
                methods=methods,
                unfinished=methods,
                outcome=ending,
                reason=f"REASON_{number}",
                seconds=1.0,
                bytes_received=1,
                bytes_sent=1,
            )
        for ending in ("completed", "cancelled", "failed"):
            watch.inference_ended(
                model=f"model-{number}", outcome=ending, reason="X", seconds=1.0, bytes_received=1, bytes_sent=1
            )
        watch.call_refused(model="", reason=f"REASON_{number}", code="NOT_FOUND")
        watch.admission_refused(f"REASON_{number}")
        watch.turned_away(0.01)
        pool.restarts(f"reason-{number}")
        pool.saved(reason=f"reason-{number}", count=1)
        for method in methods:
            pool.evaluations(method=method, engine=f"engine-{number}", count=1)
    for labels in {*GRPC_LABELS.values(), UNKNOWN}:
        for counter in (metrics.rpc_started, metrics.rpc_received, metrics.rpc_sent):
            counter.labels(*labels).inc()
        metrics.rpc_seconds.labels(*labels).observe(1)
        for code in range(17):
            metrics.rpc_handled.labels(*labels, f"CODE_{code}").inc()


def test_a_server_has_at_most_500_series_whatever_happens() -> None:
    metrics = metrics_with_models(60)
    storm(metrics)
    worst = series(metrics)
    assert 300 < worst <= MOST_SERIES
    storm(metrics)
    assert series(metrics) == worst


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("voxplain_worker_restarts_total", {"reason": "died"}),
        ("voxplain_admission_rejections_total", {"reason": "QUEUE_FULL"}),
        ("voxplain_calls_total", {"outcome": "failed"}),
        ("voxplain_evaluations_saved_total", {"reason": "shared"}),
    ],
)
def test_what_alerts_look_at_begins_at_zero_so_that_the_first_increase_is_seen(name: str, labels: dict[str, str]) -> None:
    assert Metrics().registry.get_sample_value(name, labels) == 0


def test_what_finds_no_room_is_counted_under_other() -> None:
    metrics = metrics_with_models()
    storm(metrics)
    families = {each.name: each for each in text_string_to_metric_families(generate_latest(metrics.registry).decode())}
    counted = families["voxplain_explanations"].samples
    methods = len(all_methods()) + 20
    outcomes = len(explain_pb2.Outcome.values())
    assert sum(each.value for each in counted) == 40 * methods * (outcomes + 4)
    assert {each.labels["model"] for each in counted} >= {"model-0", "other"}
    assert {each.labels["outcome"] for each in counted if each.labels["model"] == "other"} >= {"completed", "failed"}


@pytest.mark.parametrize("name", NAMES)
def test_every_promised_metric_is_served_with_help(name: str) -> None:
    server = MetricsServer(metrics_with_models(), host="127.0.0.1", port=0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        server.stop()
    assert f"# HELP {name} " in text


def test_promtool_finds_nothing_wrong_with_names_and_units() -> None:
    metrics = metrics_with_models()
    storm(metrics)
    promtool = tool("promtool")
    told = subprocess.run(
        [promtool, "check", "metrics"], input=generate_latest(metrics.registry), capture_output=True, timeout=60, check=False
    )
    assert (told.returncode, told.stdout.decode(), told.stderr.decode()) == (0, "", "")


def test_the_pool_can_tell_the_metrics() -> None:
    metrics = Metrics()
    observer: PoolObserver = PoolWatch(metrics, Log(StringIO()))
    observer.evaluations(method="occlusion", engine="onnxruntime-cpu", count=7)
    observer.saved(reason="unchanged", count=3)
    observer.restarts("died")
    observer.queue_length(4)
    observer.queue_wait_seconds(0.3)
    observer.batches(size=16, passes=3)
    observer.cancel_to_stop_seconds(0.2)
    observer.workers(ready=2, failing=False)
    sample = metrics.registry.get_sample_value
    assert sample("voxplain_evaluations_total", {"method": "occlusion", "engine": "onnxruntime-cpu"}) == 7
    assert sample("voxplain_evaluations_saved_total", {"reason": "unchanged"}) == 3
    assert sample("voxplain_worker_restarts_total", {"reason": "died"}) == 1
    assert sample("voxplain_queue_length") == 4
    assert sample("voxplain_queue_wait_seconds_sum") == 0.3
    assert sample("voxplain_evaluation_batch_size_count") == 3
    assert sample("voxplain_evaluation_batch_size_sum") == 48
    assert sample("voxplain_cancel_to_stop_seconds_count") == 1
    assert sample("voxplain_workers_ready") == 2


def test_the_pool_tells_once_that_the_compute_fails_and_once_that_it_recovered() -> None:
    told: list[bool] = []
    log = StringIO()
    watch = PoolWatch(Metrics(), Log(log), on_failing=told.append)
    for failing in (False, True, True, False, False):
        watch.workers(ready=0, failing=failing)
    assert told == [True, False]
    assert [line.split('"event": "')[1].split('"')[0] for line in log.getvalue().splitlines()] == [
        "compute_failing",
        "compute_recovered",
    ]


def test_models_are_told_with_digest_engine_and_parity_the_worst_first() -> None:
    good, bad, none = (entry(model(name)) for name in ("good", "bad", "none"))
    bad = replace(bad, traits=replace(bad.traits, twin_parity=0.5))
    none = replace(none, traits=replace(none.traits, twin_parity=None))
    metrics = Metrics()
    many = [entry(model(f"zz-{number}")) for number in range(30)]
    ModelMetrics(Catalog([good, bad, none, *many]), metrics.registry)
    sample = metrics.registry.get_sample_value
    assert sample("voxplain_model_parity_ratio", {"model": "bad", "version": "1"}) == 0.5
    assert sample("voxplain_model_parity_ratio", {"model": "none", "version": "1"}) is None
    info = {"model": "good", "version": "1", "digest": "ab" * 6, "engine": "onnxruntime-cpu"}
    assert sample("voxplain_model_info", info) == 1
    assert sample("voxplain_models", {"state": "served"}) == 33


def test_only_completed_calls_tell_how_long_an_explanation_takes() -> None:
    metrics = Metrics()
    watch = Watch(metrics, Log(StringIO()))
    for outcome in ("completed", "cancelled"):
        watch.call_ended(
            explanation_id="x",
            model="tiny",
            version="1",
            methods=["occlusion"],
            unfinished=[],
            outcome=outcome,
            reason="",
            seconds=2.0,
            bytes_received=0,
            bytes_sent=0,
        )
    sample = metrics.registry.get_sample_value
    assert sample("voxplain_explanation_duration_seconds_count", {"model": "tiny"}) == 1
    assert sample("voxplain_calls_total", {"outcome": "cancelled"}) == 1


def test_two_servers_in_one_process_do_not_share_metrics() -> None:
    one, other = Metrics(), Metrics()
    one.queue.set(3)
    assert other.registry.get_sample_value("voxplain_queue_length") == 0


def test_a_port_is_let_go() -> None:
    server = MetricsServer(Metrics(), host="127.0.0.1", port=0)
    port = server.port
    server.stop()
    again = MetricsServer(Metrics(), host="127.0.0.1", port=port)
    assert again.port == port
    again.stop()
