"""The demo's server leaves what it says in a file, where somebody looks when it does not start."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from examples.glioma_demo.demo import HERE, running_server


def test_a_server_that_does_not_start_leaves_its_reason(tmp_path: Path) -> None:
    log = tmp_path / "out" / "server.log"
    with pytest.raises(RuntimeError, match=r"server\.log"), running_server(tmp_path / "none", log=log):
        pass
    assert log.read_text().startswith("voxplain-server: ")


def test_a_server_that_runs_answers_and_stops(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with running_server(HERE / "models", log=log) as address, grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(30)
    assert '"stopped"' in log.read_text()
