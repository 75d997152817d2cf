"""A real Prometheus and a real Alertmanager in a folder of their own, with the rules that are shipped."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.tools import tool

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"


@dataclass
class Stack:
    """The two servers, and what Alertmanager has sent.

    Attributes:
        prometheus, alertmanager: base addresses.
        notified: names of alerts that reached the receiver.
    """

    prometheus: str
    alertmanager: str
    notified: set[str] = field(default_factory=set)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        told = self._get("query", {"query": expression})
        result = told["result"]
        return [{"metric": {}, "value": result}] if told["resultType"] == "scalar" else list(result)

    def query_range(self, expression: str, *, seconds: float) -> list[dict[str, Any]]:
        """The series of the last seconds."""
        now = time.time()
        return list(self._get("query_range", {"query": expression, "start": now - seconds, "end": now, "step": 1})["result"])

    def rules(self) -> list[dict[str, Any]]:
        """Every rule as Prometheus sees it."""
        return [rule for group in self._get("rules", {})["groups"] for rule in group["rules"]]

    def alerts_received(self) -> set[str]:
        """Names of the alerts that Alertmanager holds."""
        return {each["labels"]["alertname"] for each in json.loads(_read(f"{self.alertmanager}/api/v2/alerts"))}

    def _get(self, what: str, parameters: dict[str, Any]) -> dict[str, Any]:
        told = json.loads(_read(f"{self.prometheus}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"))
        assert told["status"] == "success"
        return dict(told["data"])


@contextmanager
def running_stack(folder: Path, *, metrics_url: str) -> Iterator[Stack]:
    """Scrape a server every second, with the shipped rules; only how long an alert must hold is shortened, to a second."""
    ports = _free_ports(2)
    stack = Stack(prometheus=f"http://127.0.0.1:{ports[0]}", alertmanager=f"http://127.0.0.1:{ports[1]}")
    receiver = HTTPServer(("127.0.0.1", 0), _receiver(stack.notified))
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    rules = re.sub(r"\bfor: \w+", "for: 1s", re.sub(r"interval: \w+", "interval: 1s", RULES.read_text()))
    (folder / "rules.yaml").write_text(rules)
    target = urllib.parse.urlsplit(metrics_url).netloc
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    jobs = [{"job_name": "voxplain", "static_configs": [{"targets": [target]}]}]
    managers = {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{ports[1]}"]}]}]}
    _write(
        folder / "prometheus.yaml",
        {"global": every, "rule_files": ["rules.yaml"], "scrape_configs": jobs, "alerting": managers},
    )
    hook = {"url": f"http://127.0.0.1:{receiver.server_port}/", "send_resolved": False}
    route = {"receiver": "test", "group_by": ["alertname"], "group_wait": "1s", "group_interval": "1s"}
    _write(folder / "alertmanager.yaml", {"route": route, "receivers": [{"name": "test", "webhook_configs": [hook]}]})
    commands = (
        [
            tool("prometheus"),
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'series'}",
            f"--web.listen-address=127.0.0.1:{ports[0]}",
        ],
        [
            tool("prometheus-alertmanager"),
            f"--config.file={folder / 'alertmanager.yaml'}",
            f"--storage.path={folder / 'alerts'}",
            f"--web.listen-address=127.0.0.1:{ports[1]}",
            "--cluster.listen-address=",
        ],
    )
    with (folder / "log").open("w") as log:
        processes = [subprocess.Popen(command, stdout=log, stderr=log) for command in commands]
        try:
            until(lambda: _is_ready(stack.prometheus) and _is_ready(stack.alertmanager), "both are ready", seconds=60)
            yield stack
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)
            receiver.shutdown()
            receiver.server_close()


def until(condition: Callable[[], bool], what: str, *, seconds: float) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.5)


def _receiver(notified: set[str]) -> type[BaseHTTPRequestHandler]:
    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            notified.update(each["labels"]["alertname"] for each in told["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Receiver


def _is_ready(address: str) -> bool:
    try:
        return bool(_read(f"{address}/-/ready"))
    except OSError:
        return False


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


def _write(path: Path, content: object) -> None:
    path.write_text(yaml.safe_dump(content))


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports
