"""`--replay`: the same explanation again, from its record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from voxplain_client.command.main import main

from tests.client.case_files import write_case
from tests.client.contract_server import ContractServer


@pytest.fixture
def record(server: ContractServer, tmp_path: Path) -> Path:
    """The record of an explanation."""
    out = tmp_path / "first"
    arguments = ["--method", "big=occlusion", "--set", "big.window=3", "--seed", "9", "--target", "irregular"]
    case = write_case(tmp_path)
    assert main(["explain", "--server", server.address, "--model", "fake", *case, *arguments, "--out", str(out)]) == 0
    return out / "record.json"


def replay(server: ContractServer, record: Path, case: list[str], *arguments: str) -> int:
    """`voxplain explain --replay`."""
    out = str(record.parent.parent / "again")
    return main(["explain", "--server", server.address, "--replay", str(record), *case, *arguments, "--out", out])


def test_a_replay_asks_the_same_and_finds_the_same_bytes(
    server: ContractServer, record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert replay(server, record, write_case(tmp_path)) == 0
    first, second = server.specs
    assert (second.model, second.version, second.seed) == ("fake", "1", 9)
    assert second.methods == first.methods
    assert second.target == first.target
    printed = capsys.readouterr().out
    assert printed.count("same bytes") == 2
    assert "DIFFERENT" not in printed


def test_other_voxels_are_refused_before_anything_is_computed(
    server: ContractServer, record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(server, record, write_case(tmp_path, seed=1)) == 2
    assert "--volume t1: the voxels are not the recorded ones" in capsys.readouterr().err
    assert len(server.specs) == 1


def test_another_place_in_the_patient_is_refused(
    server: ContractServer, record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads(record.read_text())
    data["inputs"][0]["tensor"]["affine"][3] += 1.0
    record.write_text(json.dumps(data))
    assert replay(server, record, write_case(tmp_path)) == 2
    assert "its affine differs" in capsys.readouterr().err
    assert len(server.specs) == 1


def test_other_maps_are_told_and_the_exit_code_is_1(
    server: ContractServer, record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads(record.read_text())
    data["maps"][0]["sha256"] = "0" * 64
    data["package_versions"] = {"onnxruntime": "1.0"}
    data["metadata_digest"] = "f" * 64
    record.write_text(json.dumps(data))
    assert replay(server, record, write_case(tmp_path)) == 1
    printed = capsys.readouterr().out
    assert "replay big t1 attribution: DIFFERENT" in printed
    assert "replay big t1c attribution: same bytes" in printed
    assert "not as it was: onnxruntime: was 1.0, is absent" in printed
    assert f"not as it was: metadata.json (SHA-256): was {'f' * 64}, is " in printed


def test_another_model_file_is_refused(
    server: ContractServer, record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads(record.read_text())
    data["model_digest"] = "e" * 64
    record.write_text(json.dumps(data))
    assert replay(server, record, write_case(tmp_path)) == 2
    assert "MODEL_DIFFERS" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--seed", "3"], ["--method", "lime"], ["--target", "round"], ["--deadline", "3"]])
def test_what_the_record_says_cannot_be_said_again(
    option: list[str], server: ContractServer, record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(server, record, write_case(tmp_path), *option) == 2
    assert f"{option[0]}: with --replay this comes from the record" in capsys.readouterr().err


def test_a_tensor_too_many_is_refused(
    server: ContractServer, record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = write_case(tmp_path)
    assert replay(server, record, case, "--mask", str(tmp_path / "t1.nii.gz")) == 2
    assert "--mask: the recorded explanation had no such tensor" in capsys.readouterr().err


def test_what_is_no_record_is_refused(server: ContractServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "first").mkdir()
    wrong = tmp_path / "first" / "record.json"
    wrong.write_text('{"no": 1}')
    assert replay(server, wrong, write_case(tmp_path)) == 2
    assert "--replay: the file is not the record.json" in capsys.readouterr().err
