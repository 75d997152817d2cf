"""Ctrl-C stops the compute and keeps what was finished."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from voxplain.v1 import explain_pb2
from voxplain_client.pictures.overview_text import mark_interrupted, write_header

from tests.client.case_files import write_case
from tests.client.contract_server import ContractServer


def test_ctrl_c_cancels_the_call_and_exits_130_with_finished_maps_kept(tmp_path: Path) -> None:
    with ContractServer(hold_before="lime") as server:
        command = [
            *(sys.executable, "-c", "import sys; from voxplain_client.command.main import main; sys.exit(main())"),
            *("explain", "--server", server.address, "--model", "fake", *write_case(tmp_path)),
            *("--method", "gradient", "--method", "lime", "--out", str(tmp_path / "out")),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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
