"""Which engine evaluates a call, and that the promises hold for each."""

from __future__ import annotations

import asyncio
import os
import signal
import weakref

import numpy as np
import pytest
from voxplain.v1 import explain_pb2
from voxplain_server.graph.graph_reader import read_graph
from voxplain_server.models.bundle_place import BundlePlace
from voxplain_server.models.description import model_from_json, model_to_json
from voxplain_server.models.loading import LoadedModel, load_model
from voxplain_server.models.model import InputSpec
from voxplain_server.workers import check_report, engine_probe
from voxplain_server.workers.catalog import Catalog
from voxplain_server.workers.checking import check_models
from voxplain_server.workers.engine_probe import choose_engine
from voxplain_server.workers.held_model import HeldModel
from voxplain_server.workers.pool_settings import PoolSettings
from voxplain_server.workers.probe_cases import probe_cases

from tests.server.engines.incremental_cases import Setting, setting
from tests.server.graph.comparing import read
from tests.server.graph.conftest import Exported
from tests.server.graph.conftest import exported as exported
from tests.server.graph.conftest import one_thread as one_thread
from tests.server.graph.networks import NETWORKS
from tests.server.workers.calling import Answer, Counts, job, method, pool_of, run
from tests.server.workers.conftest import Ward

SMALL_WINDOWS = method("occlusion", window=[3], stride=[2])
ABLATION = method("feature-ablation")
MODALITIES = method("modality-shapley")
ONNXRUNTIME, TORCH, INCREMENTAL = "onnxruntime-cpu", "torch-cpu", "incremental-cpu"
SMALL_BLOCKS = explain_pb2.Execution(batch_size=4, block_size=32)


@pytest.fixture(scope="module")
def incremental(ward: Ward) -> Catalog:
    """The same models on a server whose operator prefers the incremental engine."""
    return asyncio.run(check_models(ward.folder, settings=PoolSettings(engine="incremental")))


async def answered(catalog: Catalog, ward: Ward, *, engine: str = "", workers: int = 1, name: str = "tiny-glioma") -> Answer:
    async with pool_of(catalog, workers=workers) as pool:
        pinned = explain_pb2.Execution()
        pinned.CopyFrom(SMALL_BLOCKS)
        pinned.engine = engine
        async with job(ward.bundles[name], catalog, [SMALL_WINDOWS, ABLATION, MODALITIES], execution=pinned) as asked:
            return await run(pool, asked)


async def test_the_incremental_engine_gives_the_same_bytes_for_one_and_two_workers(ward: Ward, incremental: Catalog) -> None:
    one = await answered(incremental, ward)
    two = await answered(incremental, ward, workers=2)
    assert one.bytes_by_map == two.bytes_by_map
    assert one.record.execution.engine == INCREMENTAL
    assert {result.engine for result in one.results.values()} == {INCREMENTAL}
    assert {plan.engine for plan in one.prediction.plans} == {INCREMENTAL}


async def test_the_incremental_engine_gives_the_same_bytes_after_a_killed_worker(ward: Ward, incremental: Catalog) -> None:
    counts = Counts()
    methods = [SMALL_WINDOWS, method("occlusion", "again", window=[4], stride=[2])]
    async with (
        pool_of(incremental, counts) as pool,
        job(ward.bundles["tiny-glioma"], incremental, methods, execution=SMALL_BLOCKS) as asked,
    ):
        whole, cut, killed = await run(pool, asked), Answer(), False
        async for event in pool.run(asked):
            cut.take(event)
            if isinstance(event, explain_pb2.Progress) and event.evaluations_done > 0 and not killed:
                os.kill(pool.leading_pids[0], signal.SIGKILL)
                killed = True
    assert counts.restarted == ["died"]
    assert cut.bytes_by_map == whole.bytes_by_map
    assert cut.record.execution.engine == INCREMENTAL


async def test_a_record_of_either_engine_gives_its_bytes_again_on_a_server_that_prefers_the_other(
    ward: Ward, incremental: Catalog
) -> None:
    by_engine = {}
    for engine, own, other in ((ONNXRUNTIME, ward.catalog, incremental), (INCREMENTAL, incremental, ward.catalog)):
        first = await answered(own, ward)
        again = await answered(other, ward, engine=first.record.execution.engine)
        assert first.record.execution == again.record.execution
        assert first.record.execution.engine == engine
        assert first.bytes_by_map == again.bytes_by_map
        assert not [caution for caution in again.record.cautions if caution.code == "EXECUTION_DIFFERS"]
        by_engine[engine] = first
    for key in ("occlusion", "feature-ablation"):
        dense, ours = (
            np.concatenate([by_engine[engine].map_of(key, name) for name in ward.bundles["tiny-glioma"].modalities])
            for engine in (ONNXRUNTIME, INCREMENTAL)
        )
        assert np.abs(dense - ours).max() <= 5e-4 * np.abs(dense).max()


async def test_an_engine_that_is_not_there_is_told(ward: Ward) -> None:
    answer = await answered(ward.catalog, ward, engine="incremental-cuda")
    assert answer.record.execution.engine == ONNXRUNTIME
    assert "EXECUTION_DIFFERS" in {caution.code for caution in answer.record.cautions}


@pytest.mark.parametrize("name", ["tiny-two-views", "tiny-knee", "tiny-fixed"])
async def test_late_fusion_slices_and_fixed_batches_agree_with_whole_passes(
    name: str, ward: Ward, incremental: Catalog
) -> None:
    bundle = ward.bundles[name]
    maps = []
    for catalog in (ward.catalog, incremental):
        async with pool_of(catalog) as pool, job(bundle, catalog, [method("occlusion", window=[3], stride=[2])]) as asked:
            answer = await run(pool, asked)
        maps.append(np.concatenate([answer.map_of("occlusion", modality) for modality in bundle.modalities]))
    assert np.abs(maps[0]).max() > 0
    assert np.abs(maps[0] - maps[1]).max() <= 5e-4 * np.abs(maps[0]).max()


def test_the_catalogue_and_the_report_name_the_engine_and_why(ward: Ward, incremental: Catalog) -> None:
    entry = incremental.find("tiny-glioma")
    assert entry.description.execution.engine == INCREMENTAL
    assert entry.engines == (ONNXRUNTIME, TORCH, INCREMENTAL, "incremental-torch-cpu")
    assert ward.catalog.find("tiny-glioma").engine == ONNXRUNTIME
    restored = model_from_json(model_to_json(entry.model, entry.traits))[1]
    assert restored.engine_choice == entry.traits.engine_choice
    told = "\n".join(check_report.report(incremental))
    assert f"Perturbed cases are evaluated by {INCREMENTAL}: the operator's choice; a window takes" in told
    assert f"A call may pin {ONNXRUNTIME}, {TORCH} or incremental-torch-cpu." in told


def networked(name: str, exported: Exported) -> tuple[LoadedModel, Setting]:
    proto = read(exported(name, dynamo=False))
    network = NETWORKS[name]
    specs = [
        InputSpec(f"input_{number}", tuple(f"modality {channel}" for channel in range(shape[1])))
        for number, shape in enumerate(network.input_shapes)
    ]
    shapes = [shape[2:] for shape in network.input_shapes]
    graph = read_graph(proto)
    found = setting(graph, specs, shapes, output_shape=tuple(network.build()(*network.inputs()).shape))
    return LoadedModel(model=found.model, proto=proto, graph=graph), found


@pytest.mark.parametrize("name", ["vit", "unet"])
def test_networks_whose_windows_reach_nearly_everything_keep_whole_passes_by_counting_alone(
    name: str, exported: Exported
) -> None:
    loaded, found = networked(name, exported)
    choice = choose_engine(loaded, found.dense, found.case, preferred="auto", pass_seconds=1.0, threads=1, device="cpu")
    assert choice.engine == found.dense.name
    assert choice.incremental_seconds is None
    assert choice.share is not None
    assert choice.share * engine_probe.FASTER >= 1
    assert "by counted operations" in choice.reason


@pytest.mark.parametrize(
    ("dense_seconds", "seconds", "difference", "engine"),
    [
        (1.0, 0.1, 1e-5, "incremental"),
        (1.0, 0.9, 1e-5, "whole"),
        (1.0, 0.1, 1e-3, "whole"),
        (1.0, 0.1, float("inf"), "whole"),
    ],
)
def test_the_faster_engine_wins_where_both_agree(dense_seconds: float, seconds: float, difference: float, engine: str) -> None:
    chosen, reason = engine_probe.judge(dense_seconds, seconds, difference, preferred="auto")
    assert chosen == engine
    assert "a window takes" in reason


def test_the_operator_wins_over_the_clock() -> None:
    assert engine_probe.judge(1.0, 9.0, 0.0, preferred="incremental")[0] == "incremental"
    assert engine_probe.judge(1.0, 0.1, 0.0, preferred="onnxruntime")[0] == "whole"


def test_probe_windows_change_the_case_and_lie_inside_it(exported: Exported) -> None:
    _, found = networked("vgg", exported)
    windows = engine_probe.probe_windows(found.case)
    assert len(windows) == engine_probe.WINDOWS
    for window in windows:
        (region,) = window.regions
        volume = found.case.volumes[region.modality]
        assert all(0 <= part.start < part.stop <= size for part, size in zip(region.box, volume.shape, strict=True))
        assert (window.source[region.modality][region.box] != volume[region.box]).any()
    assert {window.regions[0].modality for window in windows} == set(range(4))


async def test_no_case_outlives_its_call_in_the_incremental_engine(ward: Ward, incremental: Catalog) -> None:
    entry = incremental.find("tiny-glioma")
    held = HeldModel(load_model(BundlePlace(entry.model.name, entry.model.version, entry.model.folder)), threads=1)
    engine = held.incremental_named(INCREMENTAL)
    assert engine is not None
    assert held.evaluator_named(INCREMENTAL) is engine
    assert held.evaluator_named(ONNXRUNTIME) is held.evaluator
    (case, *_) = probe_cases(held.model, 16)
    seen = weakref.ref(case.volumes[0])
    engine.answer(case)
    del case, _
    assert seen() is not None
    held.forget()
    assert seen() is None
