"""What was measured is found again, by all that it depends on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from voxplain.worker.v1 import worker_pb2
from voxplain_server.models.description import model_from_json
from voxplain_server.models.engine_choice import BoxCost, EngineChoice
from voxplain_server.workers import engine_probe
from voxplain_server.workers.bundle_check import check_bundle
from voxplain_server.workers.measurement_cache import Measurement, MeasurementCache, measurement_key

from tests import bundles

CHOICE = EngineChoice(
    "incremental-cpu", ("onnxruntime-cpu", "incremental-cpu"), "faster", 0.5, 0.1, 0.2, None, (BoxCost(3, 0.1),)
)
MEASURED = Measurement(0.25, 1.5, 1e-6, CHOICE)


def test_a_measurement_is_found_as_it_was_kept(tmp_path: Path) -> None:
    cache = MeasurementCache(tmp_path / "cache")
    assert cache.find("a") is None
    cache.keep("a", MEASURED)
    assert cache.find("a") == MEASURED
    assert cache.find("b") is None
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["a.json"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"evaluation_seconds": 1}', b"\xff"])
def test_what_cannot_be_read_is_measured_again(tmp_path: Path, damage: bytes) -> None:
    cache = MeasurementCache(tmp_path)
    (tmp_path / "a.json").write_bytes(damage)
    assert cache.find("a") is None


def test_without_a_folder_or_where_it_cannot_be_made_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (None, tmp_path / "file" / "below"):
        cache = MeasurementCache(folder)
        cache.keep("a", MEASURED)
        assert cache.find("a") is None


def test_the_key_depends_on_every_fact_and_not_on_their_order() -> None:
    facts = {"model": "d", "device": "cpu", "threads": "2"}
    key = measurement_key(facts)
    assert key == measurement_key(dict(reversed(facts.items())))
    assert len({key, *(measurement_key(facts | {name: "other"}) for name in facts)}) == 4


def test_a_second_check_of_a_model_takes_the_choice_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundles.early_fusion_classes(tmp_path / "models")
    kept: list[EngineChoice] = []
    asked = worker_pb2.Check(
        name=bundle.name, version=bundle.version, folder=str(bundle.folder), engine="auto", cache=str(tmp_path / "cache")
    )
    measure = engine_probe.choose_engine

    def once(*given: object, **options: object) -> EngineChoice:
        choice = dataclasses.replace(measure(*given, **options), reason="the first time")  # type: ignore[arg-type]
        kept.append(choice)
        return choice

    monkeypatch.setattr("voxplain_server.workers.bundle_check.choose_engine", once)
    first, second = (model_from_json(check_bundle(asked, threads=1).model_json)[1] for _ in range(2))
    assert len(kept) == 1
    assert first == second
    assert second.engine_choice == kept[0]
    asked.engine = "onnxruntime"
    check_bundle(asked, threads=1)
    assert len(kept) == 2
