"""Rules, dashboard, manifests and runbooks agree with one another and with the metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import generate_latest

from tests.monitoring.dashboard import DASHBOARD, expressions, panels
from tests.server.observe.test_metrics import metrics_with_models, storm
from tests.tools import tool

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
KUSTOMIZE = ROOT / "deploy" / "kustomize"
OUTSIDE = {"up", "scrape_samples_scraped"}
_NAME = re.compile(r"\b(?:voxplain_|grpc_server_|process_)\w+|\bvoxplain:[\w:]+")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def exposed() -> set[str]:
    """Names of all series, as a scrape tells them, and of what the rules record."""
    metrics = metrics_with_models()
    storm(metrics)
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")} | {
        rule["record"] for rule in rules() if "record" in rule
    }


def test_promtool_takes_the_rules_and_their_cases_hold() -> None:
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "rules_test.yaml"]):
        done = subprocess.run(
            [tool("promtool"), *command], cwd=PROMETHEUS, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_it_and_one_that_does_not() -> None:
    cases = yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text())["tests"]
    tried = [each for case in cases for each in case["alert_rule_test"]]
    for alert in alerts():
        outcomes = {bool(each["exp_alerts"]) for each in tried if each["alertname"] == alert["alert"]}
        assert outcomes == {True, False}, alert["alert"]


def test_every_alert_has_a_severity_a_summary_and_a_runbook() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["runbook"] == f"docs/operations.md#{alert['alert'].lower()}"
        assert f"### {alert['alert']}\n" in page


def test_rules_and_panels_read_only_series_that_there_are() -> None:
    there = exposed() | OUTSIDE
    read = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    for who, expression in [*read, *expressions()]:
        names = set(_NAME.findall(expression))
        assert names <= there, f"{who}: {names - there}"


def test_the_manifest_of_the_operator_holds_the_same_rules() -> None:
    manifest = yaml.safe_load((KUSTOMIZE / "components" / "monitoring" / "prometheus-rule.yaml").read_text())
    assert manifest["kind"] == "PrometheusRule"
    assert manifest["spec"] == yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())


def test_the_dashboard_answers_the_four_questions_and_overlaps_nowhere() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    rows = [each["title"] for each in dashboard["panels"] if each["type"] == "row"]
    assert rows == ["Are we up?", "Is it slow?", "Is it full?", "Is it right?"]
    assert len({each["id"] for each in dashboard["panels"]}) == len(dashboard["panels"])
    taken: set[tuple[int, int]] = set()
    for each in dashboard["panels"]:
        place = each["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, each["title"]
        taken |= cells
    for panel in panels():
        assert panel["targets"]
        assert panel["datasource"]["uid"] == "${datasource}"


def test_the_autoscale_overlay_scales_the_deployment_on_a_metric_that_there_is() -> None:
    rendered = subprocess.run(
        [tool("kubectl"), "kustomize", str(KUSTOMIZE / "overlays" / "autoscale")],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = {each["kind"]: each for each in yaml.safe_load_all(rendered.stdout)}
    scaler = found["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    names = {each["pods"]["metric"]["name"] for each in scaler["metrics"]}
    adapter = yaml.safe_load((PROMETHEUS / "adapter-rules.yaml").read_text())["rules"]
    assert names == {each["name"]["matches"] for each in adapter} <= exposed()
    labels = found["Service"]["metadata"]["labels"]
    assert found["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ports = {each["name"] for each in found["Service"]["spec"]["ports"]}
    assert {each["port"] for each in found["ServiceMonitor"]["spec"]["endpoints"]} <= ports
