"""What gets into the catalogue, and what the operator reads."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from voxplain.errors import ModelNotFound, UnsupportedByModel
from voxplain.worker.v1 import worker_pb2
from voxplain_server.models.bundle_place import BundlePlace
from voxplain_server.workers import check_report
from voxplain_server.workers.bundle_check import check_bundle
from voxplain_server.workers.catalog import CatalogEntry, Refusal
from voxplain_server.workers.checking import BundleChecker
from voxplain_server.workers.pool_settings import PoolSettings

from tests import bundles
from tests.server.models.editing import state, write_bundle
from tests.server.workers.conftest import Ward


def test_bad_bundles_are_refused_and_the_others_load(ward: Ward) -> None:
    assert [entry.model.name for entry in ward.catalog.entries] == sorted(ward.bundles)
    assert {refusal.name: refusal.version.reason for refusal in ward.catalog.refusals} == {
        "corrupt": "CORRUPT_MODEL_FILE",
        "nonsense": "CORRUPT_MODEL_FILE",
    }
    with pytest.raises(ModelNotFound) as refused:
        ward.catalog.find("corrupt")
    assert refused.value.reason == "MODEL_REFUSED"
    assert not any(str(ward.folder) in refusal.version.description for refusal in ward.catalog.refusals)


def test_the_catalogue_tells_what_a_client_needs(ward: Ward) -> None:
    told = ward.catalog.find("tiny-glioma").description
    assert [modality.name for modality in told.modalities] == ["t1", "t1c", "t2", "flair"]
    assert list(told.modalities[0].shape) == [12, 14, 10]
    assert list(told.classes) == ["round", "irregular"]
    assert told.twin_parity <= 1e-4
    assert told.execution.batch_size == 16
    assert told.evaluation_duration.ToNanoseconds() > 0
    assert ward.catalog.find("tiny-glioma").traits.evaluation_voxels == 4 * 12 * 14 * 10
    (lacking,) = [each for each in told.methods if not each.available]
    assert (lacking.method, [reason.code for reason in lacking.reasons]) == ("feature-permutation", ["NO_DONORS"])
    variants = {each.method: each.variant_of for each in told.methods if each.variant_of}
    assert set(variants) == {"antithetic-shapley", "leverage-shap", "fold-over-lime"}
    assert set(variants.values()) <= {each.method for each in told.methods}
    assert set(told.default_layers) <= set(told.layers)
    assert not ward.catalog.find("tiny-fixed").description.batched


async def test_a_bundle_that_ends_its_process_is_refused_and_the_next_is_checked(ward: Ward) -> None:
    checker = BundleChecker(PoolSettings())
    bundle = ward.bundles["tiny-fixed"]
    place = BundlePlace(bundle.name, bundle.version, bundle.folder)
    try:
        checking = asyncio.create_task(checker.check(place))
        while checker.pid is None:
            await asyncio.sleep(0.01)
        os.kill(checker.pid, signal.SIGKILL)
        first = await checking
        second = await checker.check(place)
    finally:
        await checker.close()
    assert isinstance(first, Refusal)
    assert first.version.reason == "CHECK_CRASHED"
    assert isinstance(second, CatalogEntry)


async def test_a_bundle_that_asks_for_too_much_memory_is_refused_and_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    greedy = bundles.two_dimensional(tmp_path, name="greedy")
    _make_greedy(greedy.folder / "model.onnx")
    good = bundles.two_dimensional(tmp_path, name="modest")
    checker = BundleChecker(PoolSettings())
    try:
        found = [await checker.check(BundlePlace(each.name, each.version, each.folder)) for each in (greedy, good)]
    finally:
        await checker.close()
    assert isinstance(found[0], Refusal)
    assert isinstance(found[1], CatalogEntry)
    (told,) = [vars(each)["fields"] for each in caplog.records if each.msg == "bundle_refused"]
    assert told == {"model": "greedy", "version": "1", "reason": found[0].version.reason}


def test_a_bundle_with_a_spoiled_background_case_is_refused(tmp_path: Path) -> None:
    bundle = bundles.two_dimensional(tmp_path, name="donated")
    (bundle.folder / "bad.nii.gz").write_bytes(gzip.compress(b"no volume"))
    cases = [dict.fromkeys(bundle.modalities, "bad.nii.gz")]
    state(bundle, background_cases={"declaration": "synthetic", "cases": cases})
    with pytest.raises(UnsupportedByModel) as refused:
        check_bundle(asked_of(bundle), threads=1)
    assert refused.value.reason == "BACKGROUND_UNREADABLE"
    assert refused.value.message.startswith(f"Background case 0, {bundle.modalities[0]}: ")
    assert "bad" not in refused.value.message


@pytest.mark.parametrize("shape", [(12, 10), None])
def test_a_bundle_whose_model_answers_no_numbers_is_refused(tmp_path: Path, shape: tuple[int, ...] | None) -> None:
    place = write_bundle(
        tmp_path,
        inputs={"image": ["batch", 1, *(shape or ("height", "width"))]},
        outputs={"pred": ["batch", 1]},
        nodes=[
            ("GlobalAveragePool", ["image"], "mean", {}),
            ("Flatten", ["mean"], "flat", {}),
            ("Sub", ["flat", "flat"], "nothing", {}),
            ("Log", ["nothing"], "deep", {}),
            ("Neg", ["deep"], "high", {}),
            ("Add", ["deep", "high"], "pred", {}),
        ],
    )
    with pytest.raises(UnsupportedByModel) as refused:
        check_bundle(worker_pb2.Check(name=place.name, version=place.version, folder=str(place.folder)), threads=1)
    assert refused.value.reason == "ANSWER_NOT_FINITE"


def asked_of(bundle: bundles.TinyBundle) -> worker_pb2.Check:
    return worker_pb2.Check(name=bundle.name, version=bundle.version, folder=str(bundle.folder))


def test_the_report_says_what_works_and_what_to_change(ward: Ward) -> None:
    told = "\n".join(check_report.report(ward.catalog))
    assert "tiny-glioma, version 1: A tiny model for tests." in told
    assert "t1c: 12 x 14 x 10 voxels" in told
    assert "Methods that work (19)" in told
    assert "feature-permutation does not work: NO_DONORS" in told
    assert "largest relative difference" in told
    assert "corrupt, version 1: REFUSED, CORRUPT_MODEL_FILE" in told
    assert "5 can be served, 2 cannot." in told


def test_the_command_fails_where_nothing_can_be_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_report.main(tmp_path) == 1
    assert "No bundle is there" in capsys.readouterr().out


def _make_greedy(path: Path) -> None:
    """Add a tensor of 8 TiB, made when the model runs, to the first value of the graph."""
    model = onnx.load(path)
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 21], dtype=np.int64), "greedy_shape")
    model.graph.initializer.append(shape)
    output = model.graph.output[0].name
    last = next(node for node in model.graph.node if output in node.output)
    last.output[0] = "modest"
    nodes = [
        helper.make_node("ConstantOfShape", ["greedy_shape"], ["greedy"]),
        helper.make_node("ReduceSum", ["greedy"], ["sum"], keepdims=0),
        helper.make_node("Add", ["modest", "sum"], [output]),
    ]
    model.graph.node.extend(nodes)
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    onnx.save(model, path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_report.main(tmp_path / "nowhere") == 1
    assert capsys.readouterr().out == "There is no such folder.\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("outputs[0].channel_def is not a list", "outputs[0].channel_def is not a list."),
        ("metadata.json: not an object.", "metadata.json: not an object."),
        ("the graph ends in two outputs", "The graph ends in two outputs."),
        ("refused.", "Refused."),
    ],
)
def test_a_key_or_a_file_keeps_its_letters_at_the_start_of_a_sentence(words: str, sentence: str) -> None:
    assert check_report._sentence(words) == sentence
