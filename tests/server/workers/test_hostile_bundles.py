"""Bundles made to do harm: each is refused by a reason, and what checks them lives on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from voxplain_server.models.bundle_place import BundlePlace
from voxplain_server.models.loading import load_model
from voxplain_server.models.model_refused import ModelRefused
from voxplain_server.workers.catalog import CatalogEntry, Refusal
from voxplain_server.workers.checking import BundleChecker
from voxplain_server.workers.pool_settings import PoolSettings

from tests import bundles
from tests.stress.mutants import mutant

MUTANTS = 100
Spoil = Callable[[onnx.ModelProto, Path], None]


def external(tensor: onnx.TensorProto, location: str, **entries: str) -> None:
    """Point a tensor elsewhere."""
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": location} | entries).items():
        tensor.external_data.add(key=key, value=value)


def weight_of(model: onnx.ModelProto) -> onnx.TensorProto:
    return next(each for each in model.graph.initializer if each.data_type == TensorProto.FLOAT and each.raw_data)


def upwards(model: onnx.ModelProto, folder: Path) -> None:
    external(weight_of(model), "../../../secret")


def absolute(model: onnx.ModelProto, folder: Path) -> None:
    external(weight_of(model), str(folder.parents[2] / "secret"))


def symbolic_link(model: onnx.ModelProto, folder: Path) -> None:
    (folder / "w").symlink_to(folder.parents[2] / "secret")
    external(weight_of(model), "w")


def linked_folder(model: onnx.ModelProto, folder: Path) -> None:
    (folder / "sub").symlink_to(folder.parents[2])
    external(weight_of(model), "sub/secret")


def hard_link(model: onnx.ModelProto, folder: Path) -> None:
    (folder / "w").hardlink_to(folder.parents[2] / "secret")
    external(weight_of(model), "w")


def odd_attribute(model: onnx.ModelProto, folder: Path) -> None:
    (folder / "w").write_bytes(bytes(1 << 16))
    external(weight_of(model), "w", __class__="x", length="1")


def beyond_the_end(model: onnx.ModelProto, folder: Path) -> None:
    (folder / "w").write_bytes(b"few")
    external(weight_of(model), "w", offset="999999999")


def huge(model: onnx.ModelProto, folder: Path) -> None:
    weight_of(model).dims[:] = [1 << 40, 1 << 20]


def in_a_sparse_tensor(model: onnx.ModelProto, folder: Path) -> None:
    values = numpy_helper.from_array(np.zeros(3, np.float32), "s")
    external(values, "../../../secret")
    model.graph.sparse_initializer.add(values=values, indices=numpy_helper.from_array(np.arange(3), "i"), dims=[9])


def in_an_attribute(model: onnx.ModelProto, folder: Path) -> None:
    value = numpy_helper.from_array(np.zeros(3, np.float32), "a")
    external(value, "../../../secret")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["unused"], value=value))


def in_a_function(model: onnx.ModelProto, folder: Path) -> None:
    value = numpy_helper.from_array(np.zeros(3, np.float32), "f")
    external(value, "../../../secret")
    constant = helper.make_node("Constant", [], ["y"], value=value)
    model.functions.append(helper.make_function("mine", "f", [], ["y"], [constant], [helper.make_opsetid("", 18)]))


def in_a_subgraph(model: onnx.ModelProto, folder: Path) -> None:
    value = numpy_helper.from_array(np.zeros(3, np.float32), "g")
    external(value, "../../../secret")
    branch = helper.make_graph([], "b", [], [helper.make_tensor_value_info("g", TensorProto.FLOAT, [3])], [value])
    model.graph.node.append(helper.make_node("If", ["c"], ["unused"], then_branch=branch, else_branch=branch))


def foreign_domain(model: onnx.ModelProto, folder: Path) -> None:
    model.opset_import.add(domain="com.microsoft", version=1)
    model.graph.node[0].domain = "com.microsoft"


HOSTILE: list[tuple[str, Spoil, str]] = [
    ("CVE-2022-25882", upwards, "EXTERNAL_DATA_ESCAPES"),
    ("CVE-2024-27318", absolute, "EXTERNAL_DATA_ESCAPES"),
    ("CVE-2026-27489", linked_folder, "EXTERNAL_DATA_ESCAPES"),
    ("CVE-2026-34445", odd_attribute, "CORRUPT_MODEL_FILE"),
    ("CVE-2026-34446", hard_link, "EXTERNAL_DATA_ESCAPES"),
    ("CVE-2026-34447", symbolic_link, "EXTERNAL_DATA_ESCAPES"),
    ("beyond", beyond_the_end, "EXTERNAL_DATA_OUT_OF_RANGE"),
    ("huge", huge, "TENSOR_SIZE_MISMATCH"),
    ("sparse", in_a_sparse_tensor, "EXTERNAL_DATA_ESCAPES"),
    ("attribute", in_an_attribute, "EXTERNAL_DATA_ESCAPES"),
    ("function", in_a_function, "EXTERNAL_DATA_ESCAPES"),
    ("subgraph", in_a_subgraph, "EXTERNAL_DATA_ESCAPES"),
    ("domain", foreign_domain, "UNKNOWN_OPERATOR_DOMAIN"),
]


@pytest.mark.parametrize(("spoil", "reason"), [each[1:] for each in HOSTILE], ids=[each[0] for each in HOSTILE])
def test_a_hostile_bundle_is_refused_by_name_and_reads_nothing_outside(
    tmp_path: Path, spoil: Spoil, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_bytes(bytes(1 << 16))
    bundle = bundles.two_dimensional(tmp_path / "models")
    path = bundle.folder / "model.onnx"
    model = onnx.load(path)
    spoil(model, bundle.folder)
    path.write_bytes(model.SerializeToString())
    opened = note_opened_files(monkeypatch)
    with pytest.raises(ModelRefused) as refused:
        load_model(BundlePlace(bundle.name, bundle.version, bundle.folder))
    assert refused.value.reason == reason
    assert str(tmp_path) not in refused.value.message
    secret = (tmp_path / "secret").stat().st_ino
    # A hard link cannot be told before it is opened; nothing is read from it then.
    assert spoil is hard_link or secret not in opened


def note_opened_files(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Inodes of the files that os.open gave."""
    opened: set[int] = set()
    real = os.open

    def note(*arguments: object, **named: object) -> int:
        descriptor = real(*arguments, **named)  # type: ignore[arg-type]
        opened.add(os.fstat(descriptor).st_ino)
        return descriptor

    monkeypatch.setattr(os, "open", note)
    return opened


@pytest.mark.parametrize("name", ["metadata.json", "model.onnx"])
def test_a_named_pipe_in_the_place_of_a_file_stops_nobody(tmp_path: Path, name: str) -> None:
    bundle = bundles.two_dimensional(tmp_path)
    (bundle.folder / name).unlink()
    os.mkfifo(bundle.folder / name)
    with pytest.raises(ModelRefused) as refused:
        load_model(BundlePlace(bundle.name, bundle.version, bundle.folder))
    assert refused.value.reason in ("METADATA_MISSING", "ONNX_MISSING")


async def test_a_hundred_mutants_are_judged_and_what_checks_them_lives_on(tmp_path: Path) -> None:
    """Most are refused when they are read; those that are not go on to both engines, in the process that may die of them."""
    bundle = bundles.two_dimensional(tmp_path)
    place = BundlePlace(bundle.name, bundle.version, bundle.folder)
    path = bundle.folder / "model.onnx"
    whole = path.read_bytes()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1 << 16))
    (bundle.folder / "link").symlink_to(secret)
    (bundle.folder / "linked").symlink_to(tmp_path)
    refused, judged = 0, []
    checker = BundleChecker(PoolSettings(engine="onnxruntime", check_seconds=60))
    try:
        for number in range(MUTANTS):
            path.write_bytes(mutant(whole, number, seed=20261124, secret=secret))
            try:
                load_model(place)
            except ModelRefused as error:
                assert error.reason.isupper()
                refused += 1
            else:
                judged.append(await checker.check(place))
        path.write_bytes(whole)
        assert isinstance(await checker.check(place), CatalogEntry)
    finally:
        await checker.close()
    assert refused + len(judged) == MUTANTS
    assert refused > MUTANTS // 10
    assert all(isinstance(each, CatalogEntry) or each.version.reason.isupper() for each in judged)
    crashed = [each for each in judged if isinstance(each, Refusal) and each.version.reason == "CHECK_CRASHED"]
    assert len(crashed) < MUTANTS // 10


async def test_a_bundle_that_takes_too_much_memory_or_time_is_refused(tmp_path: Path) -> None:
    bundle = bundles.two_dimensional(tmp_path)
    place = BundlePlace(bundle.name, bundle.version, bundle.folder)
    for settings, reason in (
        (PoolSettings(check_memory_bytes=32 << 20), "CHECK_MEMORY"),
        (PoolSettings(check_seconds=0.2), "CHECK_TIMEOUT"),
    ):
        checker = BundleChecker(settings)
        try:
            verdict = await checker.check(place)
        finally:
            await checker.close()
        assert isinstance(verdict, Refusal)
        assert verdict.version.reason == reason
