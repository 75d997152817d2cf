"""The `voxplain` command, against a server that speaks the contract."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format
from voxplain.v1 import explain_pb2, method_pb2
from voxplain_client.command.main import main

from tests.client.case_files import AFFINE, read_map, write_case
from tests.client.contract_server import Break, ContractServer


def explain(server: ContractServer, out: Path, *arguments: str) -> int:
    """`voxplain explain` of the fake model."""
    return main(["explain", "--server", server.address, "--model", "fake", *arguments, "--out", str(out)])


def test_maps_record_importance_and_picture_are_written(
    server: ContractServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    case = write_case(tmp_path)
    assert explain(server, out, *case, "--method", "all", "--method", "cam=grad-cam", "--seed", "4") == 0
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == {
        *(f"{key}/{modality}.nii.gz" for key in ("gradient", "occlusion", "lime") for modality in ("t1", "t1c")),
        *("cam/shared.nii.gz", "record.json", "modality-importance.json", "overview.png"),
    }
    written, volume = read_map(out / "lime" / "t1.nii.gz"), read_map(tmp_path / "t1.nii.gz")
    np.testing.assert_array_equal(written.affine, AFFINE)
    np.testing.assert_array_equal(written.get_fdata(), volume.get_fdata() * 2)
    record = json_format.Parse((out / "record.json").read_text(), explain_pb2.ExplanationRecord())
    assert (record.seed, [result.method_key for result in record.results]) == (4, ["gradient", "occlusion", "lime", "cam"])
    importance = json.loads((out / "modality-importance.json").read_text())
    shares = [held["share_of_positive"] for held in importance["lime"]["modalities"].values()]
    assert sum(shares) == pytest.approx(1.0)
    printed = capsys.readouterr()
    for words in ("importance of the modalities", "irregular 0.88", "not defined", "completed", "Not for diagnostic use"):
        assert words in printed.out
    assert "left out guided-backprop: NO_RELU" in printed.err
    assert "lime: 2 of 4 evaluations" in printed.err


def test_equal_explanations_write_equal_records_and_pictures(server: ContractServer, tmp_path: Path) -> None:
    case = write_case(tmp_path)
    for name in ("a", "b"):
        assert explain(server, tmp_path / name, *case, "--method", "gradient") == 0
    first, second = ((tmp_path / name / "record.json").read_text().replace("e2", "e1") for name in ("a", "b"))
    assert first == second


def test_a_partial_result_is_marked_in_its_files(tmp_path: Path) -> None:
    with ContractServer(outcomes={"lime": explain_pb2.OUTCOME_BUDGET_SPENT}) as server:
        assert explain(server, tmp_path / "out", *write_case(tmp_path), "--method", "lime", "--max-evaluations", "2") == 0
    header = read_map(tmp_path / "out" / "lime" / "t1.nii.gz").header
    assert header.get_intent()[2] == "PARTIAL"
    assert b"PARTIAL budget spent, 2 of 4" in bytes(header["descrip"])
    assert "PARTIAL" in (tmp_path / "out" / "lime" / "PARTIAL.txt").read_text()
    assert json.loads((tmp_path / "out" / "modality-importance.json").read_text())["lime"]["partial"] is True
    assert server.specs[0].budget.max_evaluations == 2


def test_a_complete_result_replaces_a_partial_one_without_a_trace(server: ContractServer, tmp_path: Path) -> None:
    case = write_case(tmp_path)
    server.outcomes["lime"] = explain_pb2.OUTCOME_BUDGET_SPENT
    explain(server, tmp_path / "out", *case, "--method", "lime")
    server.outcomes.clear()
    explain(server, tmp_path / "out", *case, "--method", "lime", "--overwrite")
    assert not (tmp_path / "out" / "lime" / "PARTIAL.txt").exists()
    assert read_map(tmp_path / "out" / "lime" / "t1.nii.gz").header.get_intent()[2] == ""


def test_a_failed_method_leaves_the_others_and_the_exit_code_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ContractServer(outcomes={"lime": explain_pb2.OUTCOME_FAILED}) as server:
        case = write_case(tmp_path)
        assert explain(server, tmp_path / "out", *case, "--method", "lime", "--method", "gradient") == 1
    assert not (tmp_path / "out" / "lime").exists()
    assert (tmp_path / "out" / "gradient" / "t1.nii.gz").exists()
    assert "WORKER_LOST the worker died" in capsys.readouterr().out


def test_every_option_reaches_the_spec(server: ContractServer, tmp_path: Path) -> None:
    case = write_case(tmp_path)
    t1, t1c = str(tmp_path / "t1.nii.gz"), str(tmp_path / "t1c.nii.gz")
    pairs = [f"t1={t1}", f"t1c={t1c}"]
    labels = tmp_path / "labels.nii.gz"
    read_map(tmp_path / "t1.nii.gz").__class__(np.ones((8, 9, 7), np.int16), AFFINE).to_filename(labels)
    status = explain(
        server, tmp_path / "out", *case, "--method", "big=occlusion", "--set", "big.window=3", "--version", "1",
        "--target", "contrast:irregular,0", "--scale", "probability", "--labels", str(labels), "--mask", t1,
        "--baseline", pairs[0], "--baseline", pairs[1], "--background", pairs[0], "--background", pairs[1],
        "--background", pairs[1], "--background", pairs[0], "--seed", "7", "--snapshots", "2", "--target-error", "0.1",
        "--deadline", "60", "--grid", "model",
    )  # fmt: skip
    assert status == 0
    (spec,) = server.specs
    assert (spec.methods[0].key, list(spec.methods[0].occlusion.window)) == ("big", [3])
    assert spec.methods[0].occlusion.fill.WhichOneof("kind") == "client"
    assert [term.class_ref.WhichOneof("ref") for term in spec.target.weighted_sum.terms] == ["name", "index"]
    assert spec.target.scale == explain_pb2.SCORE_SCALE_PROBABILITY
    assert spec.target.region.mask_tensor_id == "mask"
    assert [tensor.id for tensor in spec.tensors] == [
        *("volume-0", "volume-1", "baseline-0", "baseline-1"),
        *("background-0-0", "background-0-1", "background-1-0", "background-1-1", "labels", "mask"),
    ]
    assert (spec.seed, spec.snapshot_interval.seconds, spec.budget.soft_deadline.seconds) == (7, 2, 60)
    assert spec.budget.target_standard_error == 0.1
    assert spec.grid == explain_pb2.GRID_MODEL


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--method", "saliency"], "--method saliency: allowed are all, gradient"),
        (["--method", "occlusion", "--set", "occlusion.windw=3"], "--set occlusion.windw: unknown parameter"),
        (["--method", "gradient", "--target", "glioma"], "--target: classes are round, irregular"),
        (["--method", "gradient", "--target", "2"], "--target: classes are round, irregular"),
        (["--method", "gradient", "--target", "contrast:round"], "--target: write contrast:A,B"),
        (["--method", "gradient", "--volume", "t3=x.nii"], "--volume t3: the model reads t1, t1c"),
        (["--method", "gradient", "--volume", "x.nii"], "--volume: write MODALITY=FILE"),
        (["--method", "gradient", "--baseline", "t1=x.nii"], "--baseline: the model reads t1, t1c; missing: t1c"),
        (["--method", "gradient", "--slice", "middle"], "--slice: write an index"),
        (["--method", "gradient", "--slice", "900"], "--slice: the slices are 0 to "),
        (["--method", "gradient", "--slice", "900mm"], "--slice: the slices lie between "),
        (["--method", "gradient", "--labels", "nowhere.nii"], "--labels: the file cannot be read"),
        ([], "--method: is required"),
    ],
)
def test_a_wrong_command_line_is_one_clear_line_and_exit_code_2(
    arguments: list[str], line: str, server: ContractServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(server, tmp_path / "out", *write_case(tmp_path), *arguments) == 2
    (printed,) = capsys.readouterr().err.strip().splitlines()
    assert printed.startswith(f"voxplain: {line}")
    assert not server.specs
    assert not (tmp_path / "out").exists()


def test_a_modality_that_is_missing_is_named(
    server: ContractServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = write_case(tmp_path)[:2]
    assert explain(server, tmp_path / "out", *case, "--method", "gradient") == 2
    assert "--volume: the model reads t1, t1c; missing: t1c" in capsys.readouterr().err


def test_a_refusal_names_the_file_and_leaves_earlier_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from grpc import StatusCode

    from tests.client.contract_server import status_of

    refusals = [
        status_of(StatusCode.INVALID_ARGUMENT, "SHAPE_WRONG", "send 8 x 8 x 8 voxels", fields=("tensors[1].shape",)),
        status_of(StatusCode.INVALID_ARGUMENT, "WINDOW_TOO_LARGE", "too large", fields=("methods[0].occlusion.window",)),
    ]
    with ContractServer() as server:
        case = write_case(tmp_path)
        assert explain(server, tmp_path / "out", *case, "--method", "occlusion") == 0
        server.breaks.extend(Break(after=0, status=status) for status in refusals)
        for line in (
            "voxplain: --volume t1c shape: send 8 x 8 x 8 voxels (SHAPE_WRONG)",
            "voxplain: --set occlusion.window: too large (WINDOW_TOO_LARGE)",
        ):
            capsys.readouterr()
            assert explain(server, tmp_path / "out", *case, "--method", "occlusion", "--overwrite") == 2
            assert capsys.readouterr().err.strip().splitlines()[-1] == line
    assert (tmp_path / "out" / "record.json").exists()
    assert not (tmp_path / "out" / "INCOMPLETE.txt").exists()


def test_nobody_at_the_address_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--server", "127.0.0.1:1"]) == 2
    printed = capsys.readouterr().err
    assert "127.0.0.1:1" in printed
    assert "Traceback" not in printed


def test_the_server_may_come_from_the_environment(
    server: ContractServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VOXPLAIN_SERVER", server.address)
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert "fake  versions 1  doubles volumes" in printed
    assert "version 2 was refused: ONNX_UNREADABLE: export it again" in printed


def test_describe_tells_which_methods_work_and_why_others_do_not(
    server: ContractServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["describe", "fake", "--server", server.address]) == 0
    printed = capsys.readouterr().out
    assert "occlusion                works" in printed
    assert "does not work: NO_RELU: the model has no ReLU" in printed
    assert "round, irregular" in printed
    assert main(["describe", "absent", "--server", server.address]) == 2
    assert "MODEL_NOT_FOUND" in capsys.readouterr().err


def test_methods_are_listed_and_told_at_length(server: ContractServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--server", server.address]) == 0
    known = method_pb2.Method.DESCRIPTOR.oneofs_by_name["method"].fields
    assert len(capsys.readouterr().out.strip().splitlines()) == len(known)
    assert main(["methods", "lime", "--server", server.address]) == 0
    assert "lime.grouping.slic.segments" in capsys.readouterr().out
    assert main(["methods", "saliency", "--server", server.address]) == 2


def test_a_lost_connection_is_told_and_survived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ContractServer(breaks=[Break(after=8)]) as server:
        case = write_case(tmp_path)
        assert explain(server, tmp_path / "out", *case, "--method", "gradient", "--method", "lime") == 0
    assert "the connection was lost (CONNECTION_LOST); going on from the last checkpoint" in capsys.readouterr().err
    assert len(server.specs) == 2


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "voxplain_client.command.explain_run", raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    error = ModuleNotFoundError("no rich", name="rich")
    monkeypatch.setattr("voxplain_client.command.models.open_client", lambda options: (_ for _ in ()).throw(error))
    assert main(["models"]) == 2
    assert "pip install '.[imaging]'" in capsys.readouterr().err


def files_of(folder: Path) -> set[str]:
    """Names of all files."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_holds_an_explanation_is_refused_and_stays_as_it_is(
    server: ContractServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, case = tmp_path / "out", write_case(tmp_path)
    assert explain(server, out, *case, "--method", "gradient") == 0
    before = {name: (out / name).read_bytes() for name in files_of(out)}
    capsys.readouterr()
    assert explain(server, out, *case, "--method", "lime") == 2
    assert "--out: the folder holds an explanation" in capsys.readouterr().err
    assert {name: (out / name).read_bytes() for name in files_of(out)} == before
    assert len(server.specs) == 1


def test_overwriting_removes_the_maps_of_the_run_before_and_nothing_of_others(server: ContractServer, tmp_path: Path) -> None:
    out, case = tmp_path / "out", write_case(tmp_path)
    assert explain(server, out, *case, "--method", "gradient", "--method", "occlusion") == 0
    (out / "mine").mkdir()
    for name in ("mine/t1.nii.gz", "occlusion/note.txt"):
        (out / name).write_text("mine")
    assert explain(server, out, *case, "--method", "lime", "--overwrite") == 0
    assert files_of(out) == {
        *("mine/t1.nii.gz", "occlusion/note.txt", "lime/t1.nii.gz", "lime/t1c.nii.gz"),
        *("record.json", "modality-importance.json", "overview.png"),
    }
    assert not (out / "gradient").exists()


def test_errors_of_the_contract_are_said_in_the_words_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from grpc import StatusCode

    from tests.client.contract_server import status_of

    gone = "no such model; ListModels tells which there are"
    refusals = [
        status_of(StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", gone, fields=("model",)),
        status_of(StatusCode.FAILED_PRECONDITION, "SCALE_UNAVAILABLE", "Take the raw output.", fields=("target.scale",)),
    ]
    with ContractServer(breaks=[Break(after=0, status=status) for status in refusals]) as server:
        for line in (
            "voxplain: --model: no such model; `voxplain models` tells which there are (MODEL_NOT_FOUND)",
            "voxplain: --scale: Take the raw output (SCALE_UNAVAILABLE)",
        ):
            assert explain(server, tmp_path / "out", *write_case(tmp_path), "--method", "lime") == 2
            assert capsys.readouterr().err.strip().splitlines()[-1] == line


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("voxplain 0.")
