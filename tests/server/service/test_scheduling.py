"""The front asks for throughput where the system can give it, and starts where it cannot."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from voxplain_server.service.scheduling import prefer_throughput

ASK = "import os; from voxplain_server.service import scheduling as it; print(it.prefer_throughput(), os.sched_getscheduler(0))"


def test_the_process_that_asks_runs_under_sched_batch() -> None:
    # In a process of its own: the policy would stay with the tests.
    told = subprocess.run([sys.executable, "-c", ASK], check=True, capture_output=True, text=True).stdout.split()
    assert told == ["True", str(os.SCHED_BATCH)]


def test_a_system_that_refuses_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert not prefer_throughput()
