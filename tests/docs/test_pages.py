"""What the pages in docs/ state of options, limits and files, against the programs that they describe."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import warnings
from dataclasses import fields
from pathlib import Path
from types import FunctionType
from typing import Any, get_args

import nibabel as nib
import pytest
from voxplain_client.command import describe, explain, main, methods, models
from voxplain_server.models.engine_choice import EnginePreference
from voxplain_server.models.model import Activation
from voxplain_server.observe.log import FIELDS
from voxplain_server.settings import Limits

from tests.bundles import early_fusion_classes
from tests.serving import RunningServer

DOCS = Path(__file__).parents[2] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text()


def block(name: str, language: str, *, holding: str) -> str:
    """The one block of a page that is in a language and holds a text."""
    (found,) = [text for text in re.findall(rf"```{language}\n(.*?)```", page(name), flags=re.DOTALL) if holding in text]
    return str(found)


def run(snippet: str, names: dict[str, Any]) -> None:
    """Run a block of a page."""
    FunctionType(compile(snippet, "a page", "exec"), names)()


def options_of(command: Any) -> list[str]:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    (subparsers,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    (sub,) = subparsers.choices.values()
    return [option for action in sub._actions for option in action.option_strings if option not in ("-h", "--help")]


@pytest.mark.parametrize("command", [describe, explain, methods, models])
def test_the_page_of_the_command_has_every_option_and_no_other(command: Any) -> None:
    told = set(re.findall(r"--[a-z][a-z-]*", page("command.md")))
    assert set(options_of(command)) <= told
    known = {option for each in (describe, explain, methods, models) for option in options_of(each)}
    assert told <= known | {"--help", "--version"}


def test_the_page_of_the_command_has_every_exit_status() -> None:
    statuses = {int(status) for status in re.findall(r"^\| (\d+) \|", page("command.md"), flags=re.MULTILINE)}
    assert statuses == {0, 1, main.REFUSED, 3, main.INTERRUPTED}


@pytest.mark.parametrize("limit", [each.name for each in fields(Limits)])
def test_operations_name_every_limit_with_its_default(limit: str) -> None:
    option = f"`--{limit.replace('_', '-')}`"
    rows = [line for line in page("operations.md").splitlines() if line.startswith("| `--") and option in line]
    assert len(rows) == 1
    names, defaults = (cell.strip() for cell in rows[0].strip("| ").split(" | ")[:2])
    stated = defaults.split(", ")[names.split(", ").index(option)]
    if "of the memory" in stated:
        assert limit in ("max_in_flight_bytes", "check_memory_bytes")
        return
    number, _, unit = stated.replace(",", "").partition(" ")
    assert float(number) * {"": 1, "MiB": 1 << 20, "GiB": 1 << 30}[unit] == getattr(Limits(), limit)


def test_operations_name_every_engine_preference() -> None:
    for name in get_args(EnginePreference):
        assert re.search(rf"^\| `{name}`", page("operations.md"), flags=re.MULTILINE)


def test_the_page_for_auditors_has_every_field_of_the_log() -> None:
    told = page("audit.md").split("## What is logged")[1].split("|")[0]
    assert set(re.findall(r"`(\w+)`", told)) == {*FIELDS, "time", "level", "event"}


def test_the_page_for_auditors_has_every_field_of_the_record() -> None:
    from voxplain.v1 import explain_pb2

    rows = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \|", page("audit.md").split("## The record")[1].split("## Prove")[0], re.MULTILINE
    )
    told = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(told) == sorted(field.name for field in explain_pb2.ExplanationRecord.DESCRIPTOR.fields)


def test_the_page_for_auditors_tells_a_changed_map_from_a_recorded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = early_fusion_classes(tmp_path / "models", modalities=2)
    monkeypatch.chdir(tmp_path)
    asked = ["--model", bundle.name, "--method", "gradient", "--out", "out"]
    for name, voxels in bundle.volumes().items():
        nib.save(nib.Nifti1Image(voxels, bundle.affine), f"{name}.nii.gz")  # type: ignore[no-untyped-call]
        asked += ["--volume", f"{name}={name}.nii.gz"]
    with RunningServer(bundle.models) as server:
        assert main.main(["explain", "--server", server.address, *asked]) == 0
    snippet = block("audit.md", "python", holding="sha256")
    capsys.readouterr()
    run(snippet, {})
    assert capsys.readouterr().out == "gradient t1 as recorded\ngradient t1c as recorded\n"
    shutil.copy("out/gradient/t1.nii.gz", "out/gradient/t1c.nii.gz")
    run(snippet, {})
    assert "gradient t1c CHANGED" in capsys.readouterr().out


def test_the_export_and_the_metadata_of_the_page_make_a_bundle_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from voxplain_server.models.bundle_place import BundlePlace
    from voxplain_server.models.loading import load_model

    folder = tmp_path / "models" / "my-net" / "1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    net = torch.nn.Sequential(
        torch.nn.Conv3d(2, 3, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(block("bring-your-model.md", "python", holding="onnx.export").replace("128", "12"), {"net": net})
    metadata = json.loads(block("bring-your-model.md", "json", holding="network_data_format").replace("128", "12"))
    (folder / "metadata.json").write_text(json.dumps(metadata))
    model = load_model(BundlePlace("my-net", "1", folder)).model
    assert model.batched
    assert [modality.name for modality in model.modalities] == ["t1", "flair"]
    assert {modality.orientation for modality in model.modalities} == {"RAS"}
    assert model.output.activation is Activation.SOFTMAX
    assert model.output.classes == ("low-grade", "high-grade")
