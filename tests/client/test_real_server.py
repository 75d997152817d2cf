"""The client and the command against the real server with a tiny model."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voxplain.errors import UnsupportedByModel
from voxplain.v1 import explain_pb2, method_pb2
from voxplain.volume import Geometry, Volume
from voxplain_client import AsyncClient, Client, MapReceived, Resuming, contrast
from voxplain_client.command.main import main

from tests.bundles import TinyBundle, early_fusion_classes
from tests.client.relay import relay
from tests.serving import RunningServer

nibabel: Any = importlib.import_module("nibabel")

METHODS = ["--method", "gradient", "--method", "occlusion", "--set", "occlusion.window=5", "--method", "grad-cam"]


@dataclass(frozen=True)
class Served:
    """A running server and a case for its model."""

    address: str
    bundle: TinyBundle
    volumes: dict[str, Volume]
    files: list[str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests of this file."""
    folder = tmp_path_factory.mktemp("served")
    bundle = early_fusion_classes(folder / "models", modalities=2)
    files: list[str] = []
    volumes: dict[str, Volume] = {}
    for name, voxels in bundle.volumes().items():
        nibabel.save(nibabel.Nifti1Image(voxels, bundle.affine), folder / f"{name}.nii.gz")
        files += ["--volume", f"{name}={folder / f'{name}.nii.gz'}"]
        volumes[name] = Volume(Geometry(voxels.shape, bundle.affine), voxels)
    # A named engine: which one a measurement would choose for so small a model, chance decides.
    with RunningServer(bundle.models, ["--workers", "1", "--threads-per-worker", "1", "--engine", "onnxruntime"]) as server:
        yield Served(server.address, bundle, volumes, files)


def test_the_command_explains_and_its_replay_gives_the_same_bytes(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    common = ["explain", "--server", served.address, *served.files]
    assert main([*common, "--model", served.bundle.name, *METHODS, "--seed", "3", "--out", str(first)]) == 0
    shapes = {path.relative_to(first).as_posix(): nibabel.load(path).shape for path in first.rglob("*.nii.gz")}
    names = ["gradient/t1", "gradient/t1c", "occlusion/t1", "occlusion/t1c", "grad-cam/shared"]
    assert shapes == {f"{name}.nii.gz": (12, 14, 10) for name in names}
    capsys.readouterr()
    assert main([*common, "--replay", str(first / "record.json"), "--out", str(again)]) == 0
    assert capsys.readouterr().out.count("same bytes") == 5
    records = [json.loads((folder / "record.json").read_text()) for folder in (first, again)]
    assert records[0]["maps"] == records[1]["maps"]


def test_the_library_gets_a_prediction_and_complete_maps(served: Served) -> None:
    with Client(served.address) as client:
        result = client.explain(
            model=served.bundle.name, volumes=served.volumes, methods=["integrated-gradients"], target=contrast(1, 0)
        ).result()
    (ended,) = result.results.values()
    total = sum(float(held.array.sum(dtype=np.float64)) for held in result.maps["integrated-gradients"].values())
    assert ended.outcome == explain_pb2.OUTCOME_COMPLETED
    score = result.prediction.score
    assert total + ended.completeness_gap == pytest.approx(score - ended.baseline_score, abs=1e-5)


async def test_the_async_client_gets_the_same_maps(served: Served) -> None:
    asked: dict[str, Any] = {"model": served.bundle.name, "volumes": served.volumes, "methods": ["gradient"]}
    with Client(served.address) as client:
        first = client.explain(**asked).result()
    async with AsyncClient(served.address) as other:
        second = await other.explain(**asked).result()
    for name in served.volumes:
        np.testing.assert_array_equal(first.maps["gradient"][name].array, second.maps["gradient"][name].array)


def test_snapshots_come_before_the_final_map(served: Served) -> None:
    with Client(served.address) as client:
        events = list(
            client.explain(
                model=served.bundle.name, volumes=served.volumes, methods=["shapley-value-sampling"], snapshot_interval=0.05
            )
        )
    maps = [event for event in events if isinstance(event, MapReceived)]
    assert maps[0].header.snapshot
    assert not maps[-1].header.snapshot
    assert {received.array.shape for received in maps} == {(12, 14, 10)}


def test_a_cut_connection_goes_on_from_the_checkpoint_to_the_same_bytes(served: Served) -> None:
    # Long enough that a checkpoint, two seconds apart, comes before the end on a fast machine too.
    walks = method_pb2.Method(shapley_value_sampling=method_pb2.ShapleyValueSampling(permutations=60))
    asked: dict[str, Any] = {"model": served.bundle.name, "volumes": served.volumes, "methods": [walks]}
    resumed: list[Resuming] = []
    for address, cut in relay(int(served.address.rpartition(":")[2])):
        with Client(address) as client:
            explanation = client.explain(**asked)
            for event in explanation:
                if isinstance(event, explain_pb2.Progress) and event.checkpoint and not resumed:
                    cut()
                elif isinstance(event, Resuming):
                    resumed.append(event)
            broken = explanation.result()
    assert [event.from_checkpoint for event in resumed] == [True]
    with Client(served.address) as client:
        whole = client.explain(**asked).result()
    assert broken.record.maps == whole.record.maps


def test_a_refusal_is_typed_and_names_the_field(served: Served) -> None:
    with Client(served.address) as client, pytest.raises(UnsupportedByModel) as refused:
        client.explain(model=served.bundle.name, volumes=served.volumes, methods=["feature-permutation"]).result()
    assert refused.value.reason == "NO_DONORS"
    assert refused.value.field.startswith("methods[0]")
