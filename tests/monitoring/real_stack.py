"""A real Prometheus and a real Alertmanager watch a real server under load. Run by `make monitoring-test` (about two minutes).

Not collected by a plain `pytest`: the name says so.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.bundles import TinyBundle, early_fusion_classes
from tests.monitoring.dashboard import expressions
from tests.monitoring.load import Load
from tests.monitoring.stack import RULES, Stack, running_stack, until
from tests.serving import RunningServer

WATCHED_S = 25.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    """A good model, and one that is refused."""
    made = early_fusion_classes(tmp_path_factory.mktemp("models"))
    broken = made.models / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(b"not a model")
    (broken / "metadata.json").write_text("{}")
    return made


@pytest.fixture(scope="module")
def server(bundle: TinyBundle) -> Iterator[RunningServer]:
    running = RunningServer(bundle.models, ["--workers", "1", "--queue-length", "2"])
    with running:
        yield running


@pytest.fixture(scope="module")
def stack(server: RunningServer, bundle: TinyBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Both watch the server while it works."""
    folder = tmp_path_factory.mktemp("stack")
    with running_stack(folder, metrics_url=server.metrics_url) as running, Load(server.address, bundle) as load:
        until(lambda: load.completed >= 2, "explanations are completed", seconds=90)
        time.sleep(WATCHED_S)
        yield running


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_every_rule_evaluates(stack: Stack) -> None:
    until(lambda: all(rule["health"] == "ok" for rule in stack.rules()), "every rule was evaluated", seconds=30)
    shipped = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert len(stack.rules()) == len(shipped)


def test_every_recording_rule_that_needs_no_fault_has_data(stack: Stack) -> None:
    recorded = [rule["name"] for rule in stack.rules() if rule["type"] == "recording"]
    assert len(recorded) >= 8
    # No call ends by a fault of the server here: there is nothing to divide.
    for name in set(recorded) - {"voxplain:rpc_faults:ratio_rate5m"}:
        assert stack.query(name), name


@pytest.mark.parametrize(("title", "expression"), expressions())
def test_the_query_of_every_panel_returns_data(stack: Stack, title: str, expression: str) -> None:
    def has_data() -> bool:
        return any(math.isfinite(float(each["value"][1])) for each in stack.query(expression))

    until(has_data, f"{title}: {expression}", seconds=20)


def test_the_server_stays_within_its_series(stack: Stack) -> None:
    (samples,) = stack.query('scrape_samples_scraped{job="voxplain"}')
    assert 100 < float(samples["value"][1]) <= 500


def test_nothing_unforeseen_happens_under_load(stack: Stack) -> None:
    (faults,) = stack.query("sum(voxplain_internal_faults_total)")
    assert float(faults["value"][1]) == 0


def test_a_refused_model_fires_an_alert_that_reaches_the_receiver(stack: Stack) -> None:
    until(lambda: "VoxplainModelRefused" in stack.alerts_received(), "Alertmanager has the alert", seconds=30)
    until(lambda: "VoxplainModelRefused" in stack.notified, "the receiver has the alert", seconds=30)
    firing = {each["metric"]["alertname"] for each in stack.query('ALERTS{alertstate="firing"}')}
    assert "VoxplainDown" not in firing
    assert "VoxplainNotServing" not in firing


def test_workers_that_are_killed_again_and_again_fire_the_alert_of_a_crash_loop(stack: Stack, server: RunningServer) -> None:
    killed: set[int] = set()

    def kill_one_more() -> bool:
        for pid in set(children(server.pid)) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        return "VoxplainWorkersCrashLoop" in stack.notified

    until(kill_one_more, "the receiver has the alert", seconds=60)
    # The rule says "more than 3", but increase() reckons to the edges of its window: the third loss can be enough.
    assert len(killed) >= 3
    (restarts,) = stack.query("sum(voxplain_worker_restarts_total)")
    assert float(restarts["value"][1]) >= 3
