"""Versions come and go while the server runs, and calls never notice but by what they ask for."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from voxplain.errors import ModelNotFound, UnsupportedByModel
from voxplain.v1 import explain_pb2, method_pb2
from voxplain.worker.v1 import worker_pb2
from voxplain_server.models.bundle_place import BundlePlace
from voxplain_server.workers.bundle_check import check_bundle
from voxplain_server.workers.catalog import Catalog
from voxplain_server.workers.checking import BundleChecker
from voxplain_server.workers.faults import describe_fault
from voxplain_server.workers.job import Job
from voxplain_server.workers.pool_settings import PoolSettings
from voxplain_server.workers.reloading import Reloader

from tests import bundles
from tests.server.workers.calling import job, pool_of, run

SETTINGS = PoolSettings(engine="onnxruntime")
NAME = "tiny-glioma"
GRADIENT = method_pb2.Method(key="g", gradient=method_pb2.Gradient())
OCCLUSION = method_pb2.Method(key="o", occlusion=method_pb2.Occlusion(window=[3], stride=[2]))


class InProcessChecker(BundleChecker):
    """Checks in this process, where torch is loaded already; what a process of its own is for, test_checking shows."""

    async def _ask(self, place: BundlePlace) -> worker_pb2.Event:
        asked = worker_pb2.Check(name=place.name, version=place.version, folder=str(place.folder), engine="onnxruntime")
        try:
            return worker_pb2.Event(checked=check_bundle(asked, threads=1))
        except UnsupportedByModel as refused:
            return worker_pb2.Event(failed=describe_fault(refused))


def reloader_of(folder: Path, changed: Callable[[Catalog], None] = lambda catalog: None) -> Reloader:
    return Reloader(folder, settings=SETTINGS, changed=changed, checker=InProcessChecker)


def publish(models: Path, version: str, *, seed: int, staging: Path) -> bundles.TinyBundle:
    """Put a version into the models folder in one step."""
    made = bundles.early_fusion_classes(staging, version=version, modalities=2, seed=seed)
    (models / NAME).mkdir(parents=True, exist_ok=True)
    target = models / NAME / version
    if target.exists():
        shutil.rmtree(target)
    made.folder.rename(target)
    return bundles.TinyBundle(models, target, NAME, version, made.shapes, made.classes)


def served(catalog: Catalog) -> dict[str, str]:
    return {entry.model.version: entry.model.digest for entry in catalog.versions(NAME)}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    publish(folder, "1", seed=1, staging=tmp_path / "staging")
    return folder


async def test_a_new_version_is_picked_up_once_it_has_settled(tmp_path: Path, models: Path) -> None:
    told: list[Catalog] = []
    reloader = reloader_of(models, told.append)
    await reloader.fill()
    assert list(served(reloader.catalog)) == ["1"]
    await reloader.look()
    assert not told
    publish(models, "2", seed=2, staging=tmp_path / "staging")
    await reloader.look()
    assert list(served(reloader.catalog)) == ["1"]
    await reloader.look()
    assert list(served(reloader.catalog)) == ["2", "1"]
    assert reloader.catalog.find(NAME).model.version == "2"
    assert len(told) == 1


async def test_a_version_that_is_still_being_copied_waits(tmp_path: Path, models: Path) -> None:
    reloader = reloader_of(models)
    await reloader.fill()
    made = publish(models, "2", seed=2, staging=tmp_path / "staging")
    whole = (made.folder / "model.onnx").read_bytes()
    for end in (100, 200, len(whole)):
        (made.folder / "model.onnx").write_bytes(whole[:end])
        await reloader.look()
        assert list(served(reloader.catalog)) == ["1"]
        assert not reloader.catalog.refusals
    await reloader.look()
    assert list(served(reloader.catalog)) == ["2", "1"]


async def test_a_bad_version_is_told_of_and_a_mended_one_is_served(tmp_path: Path, models: Path) -> None:
    reloader = reloader_of(models)
    await reloader.fill()
    made = publish(models, "2", seed=2, staging=tmp_path / "staging")
    whole = (made.folder / "model.onnx").read_bytes()
    (made.folder / "model.onnx").write_bytes(b"\xff" * 200)
    for _ in range(3):
        await reloader.look()
    assert [refusal.version.reason for refusal in reloader.catalog.refusals] == ["CORRUPT_MODEL_FILE"]
    assert reloader.catalog.find(NAME).model.version == "1"
    (made.folder / "model.onnx").write_bytes(whole)
    for _ in range(2):
        await reloader.look()
    assert not reloader.catalog.refusals
    assert reloader.catalog.find(NAME).model.version == "2"


async def test_a_bad_one_never_replaces_a_good_one(models: Path) -> None:
    reloader = reloader_of(models)
    await reloader.fill()
    good = served(reloader.catalog)
    (models / NAME / "1" / "model.onnx").write_bytes(b"no model")
    for _ in range(3):
        await reloader.look()
    assert served(reloader.catalog) == good
    assert not reloader.catalog.refusals
    (models / NAME / "1" / "metadata.json").unlink()
    for _ in range(3):
        await reloader.look()
    assert served(reloader.catalog) == good


async def test_a_good_one_replaces_a_good_one_under_its_own_digest(tmp_path: Path, models: Path) -> None:
    reloader = reloader_of(models)
    await reloader.fill()
    old = reloader.catalog.find(NAME)
    publish(models, "1", seed=5, staging=tmp_path / "staging")
    for _ in range(2):
        await reloader.look()
    new = reloader.catalog.find(NAME)
    assert new.model.digest != old.model.digest
    assert reloader.catalog.serves(new) and not reloader.catalog.serves(old)


async def test_a_version_that_is_gone_leaves_and_an_empty_folder_does_not(tmp_path: Path, models: Path) -> None:
    publish(models, "2", seed=2, staging=tmp_path / "staging")
    reloader = reloader_of(models)
    await reloader.fill()
    shutil.rmtree(models / NAME / "2")
    await reloader.look()
    assert list(served(reloader.catalog)) == ["2", "1"]
    await reloader.look()
    assert list(served(reloader.catalog)) == ["1"]
    with pytest.raises(ModelNotFound):
        reloader.catalog.find(NAME, "2")
    models.rename(tmp_path / "elsewhere")
    for make in (False, True):
        if make:
            models.mkdir()
        for _ in range(3):
            await reloader.look()
        assert list(served(reloader.catalog)) == ["1"]


async def test_it_keeps_looking_until_it_is_told_to_end(tmp_path: Path, models: Path) -> None:
    reloader = Reloader(models, settings=SETTINGS)
    await reloader.fill()
    looking = asyncio.create_task(reloader.keep(0.01))
    publish(models, "2", seed=2, staging=tmp_path / "staging")
    async with asyncio.timeout(60):
        while len(served(reloader.catalog)) < 2:
            await asyncio.sleep(0.02)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking


async def test_a_call_goes_on_with_the_model_that_it_was_told_of(tmp_path: Path, models: Path) -> None:
    reloader = reloader_of(models)
    await reloader.fill()
    bundle = bundles.TinyBundle(models, models / NAME / "1", NAME, "1", dict.fromkeys(("t1", "t1c"), (12, 14, 10)), ())
    async with pool_of(reloader.catalog, workers=1) as pool, job(bundle, reloader.catalog, [OCCLUSION, GRADIENT]) as asked:
        entry = reloader.catalog.find(NAME)
        told = _of_entry(asked, reloader.catalog)
        before = await run(pool, told)
        # Another model under the same name and version, while calls run and wait that were told of the first.
        running = [asyncio.create_task(run(pool, told)) for _ in range(3)]
        publish(models, "1", seed=9, staging=tmp_path / "staging")
        for _ in range(2):
            await reloader.look()
        new = reloader.catalog.find(NAME)
        assert new.model.digest != entry.model.digest
        after = await asyncio.gather(*running)
        fresh = await run(pool, _of_entry(asked, reloader.catalog))
        # Its files are gone; who holds it still serves those who were told of it.
        shutil.rmtree(models / NAME / "1")
        last = await run(pool, told)
    for each in (*after, last):
        assert each.record.model_digest == entry.model.digest
        assert each.bytes_by_map == before.bytes_by_map
    assert fresh.record.model_digest == new.model.digest
    assert fresh.bytes_by_map != before.bytes_by_map


def _of_entry(asked: Job, catalog: Catalog) -> Job:
    return Job(
        explanation_id=asked.explanation_id,
        spec=asked.spec,
        tensors=asked.tensors,
        memory=asked.memory,
        entry=catalog.find(NAME),
    )


async def test_versions_come_and_go_under_load_and_no_call_fails(tmp_path: Path, models: Path) -> None:
    """Each map belongs to the digest that its call was told of."""
    reloader = reloader_of(models)
    await reloader.fill()
    bundle = bundles.TinyBundle(models, models / NAME / "1", NAME, "1", dict.fromkeys(("t1", "t1c"), (12, 14, 10)), ())
    maps: dict[str, set[bytes]] = {}
    ended: list[str] = []
    over = asyncio.Event()

    async with pool_of(reloader.catalog, workers=2) as pool, job(bundle, reloader.catalog, [GRADIENT]) as asked:

        async def call_again_and_again() -> None:
            while not over.is_set():
                told = _of_entry(asked, reloader.catalog)
                assert told.entry is not None
                answer = await run(pool, told)
                assert answer.record.model_digest == told.entry.model.digest
                assert answer.results["g"].outcome == explain_pb2.OUTCOME_COMPLETED
                maps.setdefault(answer.record.model_digest, set()).add(b"".join(answer.bytes_by_map.values()))
                ended.append(told.entry.model.version)

        async def some_calls() -> None:
            wanted = len(ended) + 4
            while len(ended) < wanted and not any(each.done() for each in calling):
                await asyncio.sleep(0.01)

        calling = [asyncio.create_task(call_again_and_again()) for _ in range(3)]
        for number in range(2, 6):
            publish(models, str(number), seed=number, staging=tmp_path / "staging")
            if number % 2:
                (models / NAME / str(number) / "model.onnx").write_bytes(os.urandom(300))
            for _ in range(2):
                await reloader.look()
            await some_calls()
            if number > 2:
                shutil.rmtree(models / NAME / str(number - 2), ignore_errors=True)
                for _ in range(2):
                    await reloader.look()
        over.set()
        await asyncio.gather(*calling)
    assert list(dict.fromkeys(ended)) == ["1", "2", "4"]
    assert len(maps) == 3
    assert all(len(found) == 1 for found in maps.values())
    assert len({next(iter(found)) for found in maps.values()}) == len(maps)
