"""Whole jobs on a model that another server holds: maps, faults, budgets, checkpoints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from voxplain.errors import ServerUnavailable
from voxplain.v1 import explain_pb2, method_pb2
from voxplain_server.models.model import Activation
from voxplain_server.models.remote_access import RemoteAccess
from voxplain_server.workers.catalog import Catalog
from voxplain_server.workers.checking import check_models
from voxplain_server.workers.pool import WorkerPool
from voxplain_server.workers.pool_settings import PoolSettings

from tests import bundles
from tests.bundles import TinyBundle
from tests.server.remote.inference_server import SECRET, InferenceServer, serving
from tests.server.remote.remote_bundle import remote_bundle
from tests.server.workers.calling import Answer, job, method, pool_of, run

MAPS_BOUND = 5e-4
SHORT_OF_RETRIES = {"batch_size": 2, "requests_in_flight": 2, "retry_share": 0.1, "retry_floor": 3}
OCCLUSION = method("occlusion", window=[3], stride=[3])
CLASS_1 = explain_pb2.Target(class_ref=explain_pb2.ClassRef(index=1))
PERTURBATIONS = [
    OCCLUSION,
    method("feature-ablation"),
    method("shapley-value-sampling", permutations=2),
    method("antithetic-shapley"),
    method("kernel-shap", samples=60),
    method("leverage-shap"),
    method("lime", samples=60),
    method("fold-over-lime"),
    method("modality-shapley"),
]
MAKERS: list[Callable[[Path], TinyBundle]] = [
    bundles.late_fusion,
    bundles.segmentation,
    bundles.slices_2_5d,
]


def checked(folder: Path, *endpoints: str) -> Catalog:
    """The catalogue of a folder, its endpoints allowed."""
    settings = PoolSettings(engine="onnxruntime", remote=RemoteAccess(endpoints=endpoints))
    return asyncio.run(check_models(folder, settings=settings))


async def explained(
    pool: WorkerPool,
    bundle: TinyBundle,
    catalog: Catalog,
    methods: list[method_pb2.Method],
    *,
    scale: explain_pb2.ScoreScale.ValueType = explain_pb2.SCORE_SCALE_UNSPECIFIED,
) -> Answer:
    target = explain_pb2.Target(class_ref=explain_pb2.ClassRef(index=1), scale=scale)
    async with job(bundle, catalog, methods, target=target) as asked:
        return await run(pool, asked)


@asynccontextmanager
async def pool_at(catalog: Catalog, endpoint: str, **settings: Any) -> AsyncIterator[WorkerPool]:
    async with pool_of(catalog, remote=RemoteAccess(endpoints=(endpoint,)), **settings) as pool:
        yield pool


def check_maps(ours: Answer, theirs: Answer) -> None:
    """Maps of both answers differ by no more than the bound of perturbation methods, for each method."""
    assert ours.bytes_by_map.keys() == theirs.bytes_by_map.keys()
    assert theirs.bytes_by_map
    for key in theirs.results:
        names = [name for name in theirs.bytes_by_map if name[0] == key and name[1] == "ATTRIBUTION"]
        values = [
            [np.frombuffer(answer.bytes_by_map[name], "<f4") for name in names]
            if names
            else [np.array([each.value for each in answer.results[key].modality_values])]
            for answer in (ours, theirs)
        ]
        a, b = (np.concatenate(each) for each in values)
        assert np.abs(a - b).max() <= MAPS_BOUND * np.abs(b).max(), key


def test_every_perturbation_method_gives_the_maps_of_the_local_engine(tmp_path: Path) -> None:
    with ExitStack() as running:
        pairs: list[tuple[TinyBundle, TinyBundle]] = []
        servers: list[InferenceServer] = []
        endpoints: list[str] = []
        for maker in MAKERS:
            local = maker(tmp_path)
            servers.append(InferenceServer(local.folder / "model.onnx", prefix="their-", typed=len(servers) == 1))
            endpoints.append(running.enter_context(serving(servers[-1])))
            inputs = {name: f"their-{name}" for name in input_names(local)}
            pairs.append((local, remote_bundle(local, tmp_path, endpoints[-1], inputs=inputs)))
        catalog = checked(tmp_path, *endpoints)

        async def all_pairs() -> list[tuple[Answer, Answer]]:
            async with pool_of(catalog, remote=RemoteAccess(endpoints=tuple(endpoints))) as pool:
                return [
                    (
                        await explained(pool, far, catalog, methods_of(catalog, far)),
                        await explained(pool, local, catalog, methods_of(catalog, far), scale=scale_of(catalog, local)),
                    )
                    for local, far in pairs
                ]

        answers = asyncio.run(all_pairs())
    for (ours, theirs), (_, far), server in zip(answers, pairs, servers, strict=True):
        check_maps(ours, theirs)
        assert {result.engine for result in ours.results.values()} == {"remote"}
        assert "REMOTE_MODEL" in {each.code for each in ours.record.cautions}
        assert ours.record.model_digest == catalog.find(far.name).model.digest
        assert server.most_at_once > 1


def methods_of(catalog: Catalog, bundle: TinyBundle) -> list[method_pb2.Method]:
    """All perturbation methods on one model, some on the others."""
    able = {each.method for each in catalog.find(bundle.name).description.methods if each.available}
    asked = PERTURBATIONS if bundle.name == "far-tiny-two-views" else [OCCLUSION, PERTURBATIONS[-1]]
    assert {(each.WhichOneof("method") or "").replace("_", "-") for each in asked} <= able
    return asked


def scale_of(catalog: Catalog, local: TinyBundle) -> explain_pb2.ScoreScale.ValueType:
    """A remote model that ends in a sigmoid shows nothing in front of it: its probabilities are explained as they are."""
    ends_in_sigmoid = catalog.find(local.name).model.output.activation is Activation.SIGMOID
    return explain_pb2.SCORE_SCALE_PROBABILITY if ends_in_sigmoid else explain_pb2.SCORE_SCALE_UNSPECIFIED


def input_names(bundle: TinyBundle) -> list[str]:
    return list(json.loads((bundle.folder / "metadata.json").read_text())["network_data_format"]["inputs"])


def test_gradient_methods_are_refused_with_a_reason(tmp_path: Path) -> None:
    local = bundles.early_fusion_classes(tmp_path / "local")
    with serving(InferenceServer(local.folder / "model.onnx")) as endpoint:
        far = remote_bundle(local, tmp_path / "far", endpoint)
        told = checked(tmp_path / "far", endpoint).find(far.name).description
    reasons = {each.method: [reason.code for reason in each.reasons] for each in told.methods}
    for name in ("gradient", "grad-cam", "guided-backprop", "deep-lift", "integrated-gradients", "smooth-grad"):
        assert reasons[name] == ["REMOTE_MODEL"]
    assert {each.method for each in told.methods if each.available} >= {"occlusion", "lime", "kernel-shap", "modality-shapley"}


def test_a_fifth_of_the_requests_failing_changes_nothing(tmp_path: Path) -> None:
    local = bundles.early_fusion_classes(tmp_path / "local")
    server = InferenceServer(local.folder / "model.onnx")
    with serving(server) as endpoint:
        far = remote_bundle(local, tmp_path / "far", endpoint, batch_size=2)
        catalog = checked(tmp_path / "far", endpoint)

        async def twice() -> tuple[Answer, Answer]:
            async with pool_at(catalog, endpoint) as pool:
                whole = await explained(pool, far, catalog, [OCCLUSION])
                server.fail_every = 5
                return whole, await explained(pool, far, catalog, [OCCLUSION])

        whole, shaken = asyncio.run(twice())
    assert shaken.results["occlusion"].outcome == explain_pb2.OUTCOME_COMPLETED
    assert shaken.bytes_by_map == whole.bytes_by_map


def test_beyond_the_retry_budget_a_method_fails_and_a_later_call_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    local = bundles.early_fusion_classes(tmp_path / "local")
    server = InferenceServer(local.folder / "model.onnx")
    with serving(server) as endpoint:
        far = remote_bundle(
            local, tmp_path / "far", endpoint, batch_size=2, requests_in_flight=2, retry_share=0.1, retry_floor=3
        )
        catalog = checked(tmp_path / "far", endpoint)

        async def thrice() -> tuple[Answer, Answer, Answer, int, int]:
            async with pool_at(catalog, endpoint) as pool:
                server.requests = 0
                whole = await explained(pool, far, catalog, [OCCLUSION])
                needed = server.requests
                server.requests, server.fail_after = 0, needed // 2
                async with job(far, catalog, [OCCLUSION], target=CLASS_1) as asked:
                    cut = await run(pool, asked)
                server.requests, server.fail_after = 0, None
                async with job(far, catalog, [OCCLUSION], target=CLASS_1, checkpoint=cut.checkpoints[-1]) as asked:
                    resumed = await run(pool, asked)
                return whole, cut, resumed, needed, server.requests

        whole, cut, resumed, needed, asked_again = asyncio.run(thrice())
    failed = cut.results["occlusion"]
    assert failed.outcome == explain_pb2.OUTCOME_FAILED
    assert failed.reason == "REMOTE_RETRY_BUDGET_SPENT"
    assert SECRET not in failed.description
    assert not cut.bytes_by_map
    assert resumed.results["occlusion"].outcome == explain_pb2.OUTCOME_COMPLETED
    assert resumed.bytes_by_map == whole.bytes_by_map
    assert asked_again < needed


def test_a_server_that_is_gone_fails_the_call_as_unavailable_and_the_next_call_works(tmp_path: Path) -> None:
    local = bundles.early_fusion_classes(tmp_path / "local")
    server = InferenceServer(local.folder / "model.onnx")
    with serving(server) as endpoint:
        far = remote_bundle(local, tmp_path / "far", endpoint, retry_share=0.0, retry_floor=0)
        catalog = checked(tmp_path / "far", endpoint)

        async def both() -> Answer:
            async with pool_at(catalog, endpoint) as pool:
                server.requests, server.fail_after = 0, 0
                with pytest.raises(ServerUnavailable) as caught:
                    await explained(pool, far, catalog, [OCCLUSION])
                assert caught.value.reason == "REMOTE_RETRY_BUDGET_SPENT"
                assert SECRET not in caught.value.message
                server.fail_after = None
                return await explained(pool, far, catalog, [OCCLUSION])

        assert asyncio.run(both()).results["occlusion"].outcome == explain_pb2.OUTCOME_COMPLETED


def test_a_cancelled_job_stops_asking(tmp_path: Path) -> None:
    local = bundles.early_fusion_classes(tmp_path / "local")
    server = InferenceServer(local.folder / "model.onnx")
    with serving(server) as endpoint:
        far = remote_bundle(local, tmp_path / "far", endpoint, batch_size=1)
        catalog = checked(tmp_path / "far", endpoint)

        async def leave() -> tuple[int, int]:
            async with pool_at(catalog, endpoint) as pool:
                server.delay_s = 0.05
                async with job(far, catalog, [method("occlusion", window=[2], stride=[1])]) as asked:
                    events = pool.run(asked)
                    async for event in events:
                        if isinstance(event, explain_pb2.Progress) and event.stage == explain_pb2.Progress.STAGE_COMPUTING:
                            break
                    await events.aclose()
                await asyncio.sleep(1.0)
                before = server.requests
                await asyncio.sleep(1.0)
                return before, server.requests

        before, after = asyncio.run(leave())
    assert after == before


def test_feature_permutation_takes_the_background_cases_that_lie_in_the_bundle(tmp_path: Path) -> None:
    local = bundles.early_fusion_classes(tmp_path)
    cases = [{name: f"{name}.nii.gz" for name in local.modalities}]
    metadata = json.loads((local.folder / "metadata.json").read_text())
    metadata.setdefault("voxplain", {})["background_cases"] = {"declaration": "synthetic", "cases": cases}
    (local.folder / "metadata.json").write_text(json.dumps(metadata))
    with serving(InferenceServer(local.folder / "model.onnx")) as endpoint:
        far = remote_bundle(local, tmp_path, endpoint)
        for bundle in (local, far):
            for name, volume in local.volumes(seed=5).items():
                image = nibabel.Nifti1Image(volume, local.affine)  # type: ignore[no-untyped-call]
                nibabel.save(image, bundle.folder / f"{name}.nii.gz")
        catalog = checked(tmp_path, endpoint)

        async def both() -> tuple[Answer, Answer]:
            asked = [method("feature-permutation")]
            async with pool_at(catalog, endpoint) as pool:
                return await explained(pool, far, catalog, asked), await explained(pool, local, catalog, asked)

        check_maps(*asyncio.run(both()))
