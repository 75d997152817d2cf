"""What is in the shipped dashboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "voxplain.json"


def panels() -> list[dict[str, Any]]:
    """Every panel that shows something."""
    return [each for each in json.loads(DASHBOARD.read_text())["panels"] if each["type"] != "row"]


def expressions() -> list[tuple[str, str]]:
    """Title and expression of every target, the variables filled in as Grafana would."""
    return [(panel["title"], _filled(target["expr"])) for panel in panels() for target in panel["targets"]]


def _filled(expression: str) -> str:
    return expression.replace("$job", ".+").replace("$__rate_interval", "1m")
