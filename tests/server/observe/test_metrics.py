"""Metrics have names that operators can rely on, and labels that cannot grow without bound."""

from __future__ import annotations

import urllib.request

import pytest
from voxplain_server.observe.metrics import Metrics, MetricsServer
from voxplain_server.workers.events import PoolObserver

NAMES = [
    "voxplain_explanations_total",
    "voxplain_explanation_duration_seconds",
    "voxplain_inflight_explanations",
    "voxplain_queue_length",
    "voxplain_evaluations_total",
    "voxplain_evaluations_saved_total",
    "voxplain_received_bytes_total",
    "voxplain_sent_bytes_total",
    "voxplain_admitted_bytes",
    "voxplain_admission_rejections_total",
    "voxplain_worker_restarts_total",
    "voxplain_build_info",
]


def test_the_pool_can_tell_the_metrics() -> None:
    metrics = Metrics()
    observer: PoolObserver = metrics
    observer.evaluations(method="occlusion", engine="onnxruntime-cpu", count=7)
    observer.saved(reason="unchanged", count=3)
    observer.restarts("died")
    observer.queue_length(4)
    observer.batch_size(16)
    observer.cancel_to_stop_seconds(0.2)
    sample = metrics.registry.get_sample_value
    assert sample("voxplain_evaluations_total", {"method": "occlusion", "engine": "onnxruntime-cpu"}) == 7
    assert sample("voxplain_evaluations_saved_total", {"reason": "unchanged"}) == 3
    assert sample("voxplain_worker_restarts_total", {"reason": "died"}) == 1
    assert sample("voxplain_queue_length") == 4
    assert sample("voxplain_batch_size_sum") == 16
    assert sample("voxplain_cancel_to_stop_seconds_count") == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_promised_metric_is_served_with_help(name: str) -> None:
    metrics = Metrics()
    server = MetricsServer(metrics, host="127.0.0.1", port=0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        server.stop()
    assert f"# HELP {name}" in text


def test_two_servers_in_one_process_do_not_share_metrics() -> None:
    one, other = Metrics(), Metrics()
    one.queue_length(3)
    assert other.registry.get_sample_value("voxplain_queue_length") == 0


def test_a_port_is_let_go() -> None:
    server = MetricsServer(Metrics(), host="127.0.0.1", port=0)
    port = server.port
    server.stop()
    again = MetricsServer(Metrics(), host="127.0.0.1", port=port)
    assert again.port == port
    again.stop()
