"""Ctrl-C stops the compute and keeps what was finished."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from grpc import StatusCode
from voxplain.v1 import explain_pb2
from voxplain_client.command.explain_run import SERVER_LOST
from voxplain_client.command.main import main
from voxplain_client.pictures.overview_text import mark_interrupted, write_header

from tests.client.case_files import write_case
from tests.client.contract_server import Break, ContractServer, status_of


def test_ctrl_c_cancels_the_call_and_exits_130_with_finished_maps_kept(tmp_path: Path) -> None:
    with ContractServer(hold_before="lime") as server:
        command = [
            *(sys.executable, "-c", "import sys; from voxplain_client.command.main import main; sys.exit(main())"),
            *("explain", "--server", server.address, "--model", "fake", *write_case(tmp_path)),
            *("--method", "gradient", "--method", "lime", "--out", str(tmp_path / "out")),
        ]
        # A shell's background jobs, and what they start, ignore Ctrl-C: the tests may be one.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        signal.signal(signal.SIGINT, before)
        assert server.waiting.wait(30)
        # The line comes when the maps are written; nothing more comes until the cancel.
        assert process.stderr is not None
        seen = ""
        while "gradient: completed" not in seen:
            seen = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert server.cancelled.wait(10)
    assert process.returncode == 130
    assert "INTERRUPTED" in out
    assert "how each method ended" in out
    assert "interrupted" in err
    assert "kept: gradient" in err
    assert "Traceback" not in err + out
    assert (tmp_path / "out" / "gradient" / "t1.nii.gz").exists()
    assert (tmp_path / "out" / "INCOMPLETE.txt").exists()
    assert not (tmp_path / "out" / "record.json").exists()
    assert (tmp_path / "out" / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_the_overview_of_an_interrupted_explanation_says_so_and_what_is_missing() -> None:
    record = explain_pb2.ExplanationRecord(explanation_id="e1", model="fake", version="1")
    record.cautions.add(code="SPACING_DIFFERS", description="d")
    text = mark_interrupted(write_header(record, convention="radiological"), finished=["gradient"], asked=["gradient", "lime"])
    assert text.cautions[0].startswith("INTERRUPTED")
    assert text.cautions[0].endswith("had not ended: lime.")
    assert text.cautions[1] == "SPACING_DIFFERS: d"
    assert text.footer == "Seed 0. Explanation e1."


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (Break(after=6, code=StatusCode.UNAVAILABLE), "the connection to the server was lost"),
        (
            Break(after=6, status=status_of(StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "stopping")),
            "the server was shutting down",
        ),
    ],
    ids=["lost", "shut down"],
)
def test_a_server_that_does_not_come_back_leaves_what_had_ended_and_a_report(
    lost: Break, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxplain_client.retry_policy.random.uniform", lambda low, high: 0.0)
    again = [Break(after=0) for _ in range(20)]
    with ContractServer(breaks=[lost, *again]) as server:
        asked = ["--model", "fake", *write_case(tmp_path), "--method", "gradient", "--method", "lime"]
        assert main(["explain", "--server", server.address, *asked, "--out", str(tmp_path / "out")]) == SERVER_LOST
    printed = capsys.readouterr()
    assert f"INTERRUPTED: {words}" in printed.err
    assert "kept: gradient" in printed.err
    assert "INTERRUPTED, without a record; had not ended: lime" in printed.out
    assert "how each method ended" in printed.out
    assert (tmp_path / "out" / "gradient" / "t1.nii.gz").exists()
    assert (tmp_path / "out" / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "out" / "record.json").exists()
