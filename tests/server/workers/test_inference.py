"""Raw tensors through the files of models, on real compute processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from voxplain.errors import InvalidTensor, ServerUnavailable
from voxplain.worker.v1 import worker_pb2
from voxplain_server.graph.graph_reader import read_graph
from voxplain_server.models.signature import ELEMENTS, FREE, TensorFace, datatype_of
from voxplain_server.models.signature_reading import read_signature
from voxplain_server.workers.catalog import CatalogEntry
from voxplain_server.workers.inference import Inference
from voxplain_server.workers.memory import memory_of
from voxplain_server.workers.pool import WorkerPool

from tests.server.workers.calling import Counts, job, method, pool_of, run
from tests.server.workers.conftest import Ward

Arrays = Mapping[str, npt.NDArray[Any]]


async def infer(
    pool: WorkerPool, entry: CatalogEntry, feeds: Arrays, outputs: tuple[str, ...] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Ask a pool as the service does, and read what comes back."""
    inputs, whole = [], b""
    for name, array in feeds.items():
        place = worker_pb2.RawTensor(
            name=name, datatype=datatype_of(array.dtype), shape=array.shape, offset=len(whole), size=array.nbytes
        )
        inputs.append(place)
        whole += array.tobytes() + bytes(-array.nbytes % 64)
    memory = memory_of(np.frombuffer(whole, dtype=np.uint8))
    wanted = outputs or tuple(face.name for face in entry.traits.signature.outputs)
    try:
        inferred = await pool.infer(Inference(entry, tuple(inputs), memory, wanted))
    finally:
        os.close(memory)
    try:
        return {
            tensor.name: np.frombuffer(
                os.pread(inferred.memory, tensor.size, tensor.offset), dtype=ELEMENTS[tensor.datatype]
            ).reshape(tuple(tensor.shape))
            for tensor in inferred.outputs
        }
    finally:
        inferred.close()


def feeds_of(entry: CatalogEntry, batch: int = 2) -> dict[str, npt.NDArray[Any]]:
    """Random tensors for every input; `batch` elements along every axis of any size."""
    rng = np.random.default_rng(0)
    shapes = {
        face.name: tuple(batch if size == FREE else size for size in face.shape or ()) for face in entry.traits.signature.inputs
    }
    return {name: rng.standard_normal(shape).astype("<f4") for name, shape in shapes.items()}


def directly(entry: CatalogEntry, feeds: Arrays) -> list[npt.NDArray[Any]]:
    """What ONNX Runtime answers without us."""
    session = onnxruntime.InferenceSession(str(entry.model.onnx_path), providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


@pytest.fixture
async def pool(ward: Ward) -> AsyncIterator[WorkerPool]:
    async with pool_of(ward.catalog, workers=1) as up:
        yield up


async def test_every_kind_of_model_answers_as_its_file_does(pool: WorkerPool, ward: Ward) -> None:
    for name in ("tiny-glioma", "tiny-fixed", "tiny-two-views", "tiny-segmentation", "tiny-knee"):
        entry = ward.catalog.find(name)
        feeds = feeds_of(entry)
        answers = await infer(pool, entry, feeds)
        for ours, theirs in zip(answers.values(), directly(entry, feeds), strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


async def test_the_signature_is_the_files_with_axes_of_any_size(ward: Ward) -> None:
    signature = ward.catalog.find("tiny-two-views").traits.signature
    assert signature.inputs == (
        TensorFace("axial", "FP32", (FREE, 1, 12, 12, 8)),
        TensorFace("sagittal", "FP32", (FREE, 1, 10, 14, 6)),
    )
    assert signature.outputs == (TensorFace("pred", "FP32", (FREE, 2)),)


async def test_shapes_that_do_not_fit_one_another_are_the_clients_fault(pool: WorkerPool, ward: Ward) -> None:
    entry = ward.catalog.find("tiny-two-views")
    feeds = feeds_of(entry)
    feeds["axial"] = feeds["axial"][:1]
    with pytest.raises(InvalidTensor) as refused:
        await infer(pool, entry, feeds)
    assert refused.value.reason == "INPUTS_NOT_RUN"
    assert (await infer(pool, entry, feeds_of(entry)))["pred"].shape == (2, 2)


async def test_explanations_and_inferences_take_turns_on_one_worker(pool: WorkerPool, ward: Ward) -> None:
    bundle, entry = ward.bundles["tiny-glioma"], ward.catalog.find("tiny-glioma")
    feeds = feeds_of(entry, batch=1)
    async with job(bundle, ward.catalog, [method("occlusion", window=[5], stride=[3])]) as asked:
        explaining = asyncio.ensure_future(run(pool, asked))
        answers = [await infer(pool, entry, feeds) for _ in range(3)]
        assert "occlusion" in (await explaining).results
    assert all((answer["pred"] == answers[0]["pred"]).all() for answer in answers)


async def test_an_inference_whose_worker_dies_is_run_by_the_next_and_given_up_after_the_second(ward: Ward) -> None:
    counts, entry = Counts(), ward.catalog.find("tiny-glioma")
    async with pool_of(ward.catalog, counts) as pool:
        (stuck,) = pool.worker_pids
        os.kill(stuck, signal.SIGSTOP)
        asked = asyncio.ensure_future(infer(pool, entry, feeds_of(entry)))
        await asyncio.sleep(0.1)
        os.kill(stuck, signal.SIGKILL)
        assert (await asked)["pred"].shape == (2, 2)
        asked = asyncio.ensure_future(infer(pool, entry, feeds_of(entry, batch=2_000)))
        for _ in range(2):
            while not (at_work := pool.busy_pids):
                await asyncio.sleep(0.001)
            os.kill(at_work[0], signal.SIGKILL)
            while pool.busy_pids == at_work:
                await asyncio.sleep(0.001)
        with pytest.raises(ServerUnavailable) as lost:
            await asked
        assert lost.value.reason == "WORKER_LOST"
        assert (await infer(pool, entry, feeds_of(entry)))["pred"].shape == (2, 2)
    assert counts.restarted == ["died"] * 3


async def test_an_inference_that_is_left_gives_its_worker_back(ward: Ward) -> None:
    counts, entry = Counts(), ward.catalog.find("tiny-glioma")
    async with pool_of(ward.catalog, counts, cancel_grace_s=60.0) as pool:
        pids = pool.worker_pids
        asked = asyncio.ensure_future(infer(pool, entry, feeds_of(entry, batch=2_000)))
        waiting = asyncio.ensure_future(infer(pool, entry, feeds_of(entry)))
        while not pool.busy_pids:
            await asyncio.sleep(0.001)
        for each in (waiting, asked):
            each.cancel()
        await asyncio.gather(asked, waiting, return_exceptions=True)
        assert asked.cancelled()
        assert (await infer(pool, entry, feeds_of(entry)))["pred"].shape == (2, 2)
        assert pool.worker_pids == pids
    assert counts.restarted == []


def test_weights_among_the_inputs_and_outputs_of_other_kinds_are_left_out(ward: Ward) -> None:
    proto = onnx.load(ward.catalog.find("tiny-glioma").model.onnx_path)
    weight = proto.graph.initializer[0]
    proto.graph.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims)))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("text", onnx.TensorProto.STRING, [1]))
    signature = read_signature(proto, read_graph(onnx.load(ward.catalog.find("tiny-glioma").model.onnx_path)))
    assert [face.name for face in signature.inputs] == ["image"]
    assert [face.name for face in signature.outputs] == ["pred"]
