"""One scenario, as its file says it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "scenarios"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a client must tell.

    Attributes:
        order: events in order, without progress, snapshots and resuming: "accepted", "map gradient", "result gradient", ...
        prefix: the events may stop anywhere in `order`.
        error: fields of the error event; None: the explanation ends with its record.
        outcomes: outcome and, after a colon, reason of each method.
        resumed: fields of a resuming event; None: there must be none.
        snapshots: whether there must be snapshots.
        progress: whether there must be progress.
        idle: the server must soon be without a call.
    """

    order: tuple[str, ...]
    prefix: bool = False
    error: Mapping[str, Any] | None = None
    outcomes: Mapping[str, str] = field(default_factory=dict)
    resumed: Mapping[str, Any] | None = None
    snapshots: bool = False
    progress: bool = True
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is asked and what is expected.

    Attributes:
        name: of the file, without its suffix.
        title: for the table.
        model: which is asked for.
        case: of cases.py; default: the one named as the model.
        request: goes to the driver, beside server, model and volumes.
        expect: what must come back.
        trouble: what the runner does meanwhile; empty: nothing.
        access: what is shown to the protected server: "full", "no-token" or "no-certificate"; empty: the open one is asked.
    """

    name: str
    title: str
    model: str
    request: Mapping[str, Any]
    expect: Expectation
    case: str = ""
    trouble: str = ""
    access: str = ""


def read_scenarios() -> list[Scenario]:
    """All scenarios, in the order of their files' names."""
    return [_read(path) for path in sorted(FOLDER.glob("*.json"))]


def _read(path: Path) -> Scenario:
    held = json.loads(path.read_text(encoding="utf-8"))
    expect = held.pop("expect")
    expect["order"] = tuple(expect["order"])
    return Scenario(name=path.stem.partition("-")[2], expect=Expectation(**expect), **held)
