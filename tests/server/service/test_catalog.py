"""The catalogue over a real server."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from voxplain.v1 import catalog_pb2, catalog_pb2_grpc, explain_pb2, method_pb2
from voxplain_server.methods import all_methods

from tests.server.service.front import Front, good_spec, running_front


def stub(front: Front) -> catalog_pb2_grpc.CatalogServiceAsyncStub:
    return catalog_pb2_grpc.CatalogServiceStub(front.channel)


async def test_models_come_by_name_with_versions_and_refusals() -> None:
    async with running_front() as front:
        answer = await stub(front).ListModels(catalog_pb2.ListModelsRequest())
        assert [each.name for each in answer.models] == ["broken", "tiny", "wide"]
        broken, tiny, _ = answer.models
        assert list(tiny.versions) == ["2", "1"]
        assert tiny.description == "two modalities"
        assert [each.reason for each in broken.refused_versions] == ["ONNX_INVALID"]
        assert not broken.versions
        assert answer.next_page_token == ""


async def test_pages_together_are_the_whole_list() -> None:
    async with running_front() as front:
        names, token = [], ""
        for _ in range(3):
            answer = await stub(front).ListModels(catalog_pb2.ListModelsRequest(page_size=1, page_token=token))
            names += [each.name for each in answer.models]
            token = answer.next_page_token
        assert names == ["broken", "tiny", "wide"]
        assert token == ""


@pytest.mark.parametrize("token", ["???", "eHg", "äöü", "////"])
async def test_a_page_token_that_is_none_is_refused(token: str) -> None:
    async with running_front() as front:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub(front).ListModels(catalog_pb2.ListModelsRequest(page_token=token))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert token not in (refused.value.details() or "")


async def test_a_model_is_found_by_name_with_its_highest_version() -> None:
    async with running_front() as front:
        answer = await stub(front).GetModel(catalog_pb2.GetModelRequest(name="tiny"))
        assert (answer.model.name, answer.model.version) == ("tiny", "2")
        older = await stub(front).GetModel(catalog_pb2.GetModelRequest(name="tiny", version="1"))
        assert older.model.version == "1"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub(front).GetModel(catalog_pb2.GetModelRequest(name="jane doe"))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        assert "jane" not in (refused.value.details() or "")


async def test_every_method_tells_its_defaults_under_its_own_field() -> None:
    async with running_front() as front:
        answer = await stub(front).ListMethods(catalog_pb2.ListMethodsRequest())
        assert [each.name for each in answer.methods] == list(all_methods())
        for each in answer.methods:
            assert (each.defaults.WhichOneof("method") or "").replace("_", "-") == each.name
            assert each.summary
            assert each.citation
        (occlusion,) = [each for each in answer.methods if each.name == "occlusion"]
        assert list(occlusion.defaults.occlusion.window) == [11]
        assert occlusion.defaults.occlusion.fill.WhichOneof("kind") == "normal_noise"
        assert {each.name: each.variant_of for each in answer.methods if each.variant_of} == {
            "antithetic-shapley": "shapley-value-sampling",
            "leverage-shap": "kernel-shap",
            "fold-over-lime": "lime",
        }


async def test_an_estimate_counts_evaluations_time_and_memory() -> None:
    spec = good_spec()
    spec.methods.append(method_pb2.Method(occlusion=method_pb2.Occlusion(window=[2], stride=[2])))
    async with running_front() as front:
        answer = await stub(front).EstimateExplanation(catalog_pb2.EstimateExplanationRequest(spec=spec))
        gradient, occlusion = answer.plans
        assert (gradient.evaluations, gradient.blocks) == (1, 0)
        assert occlusion.evaluations == 2 * 3 * 3 * 2
        assert occlusion.blocks >= 1
        seconds = occlusion.estimated_duration.ToNanoseconds() / 1e9
        assert seconds == pytest.approx(0.01 * occlusion.evaluations, rel=0.01)
        parts = [answer.preparing_duration, answer.transfer_duration, *(each.estimated_duration for each in answer.plans)]
        assert all(each.ToNanoseconds() > 0 for each in parts)
        whole = answer.estimated_duration.ToNanoseconds()
        assert whole == pytest.approx(sum(each.ToNanoseconds() for each in parts), abs=len(parts))
        # 2 volumes of 480 bytes on aligned places, and an attribution and an error map of each for both methods
        assert answer.reserved_bytes == 512 + 480 + 2 * 2 * 2 * 480
        assert answer.queue_position == 0
        assert front.admission.reserved_bytes == 0


async def test_an_estimate_names_engines_and_features() -> None:
    spec = good_spec()
    grouping = method_pb2.FeatureGrouping(slic=method_pb2.SlicGrouping(segments=6))
    spec.methods.append(method_pb2.Method(lime=method_pb2.Lime(grouping=grouping)))
    spec.methods.append(method_pb2.Method(occlusion=method_pb2.Occlusion(window=[2])))
    async with running_front() as front:
        answer = await stub(front).EstimateExplanation(catalog_pb2.EstimateExplanationRequest(spec=spec))
        gradient, lime, occlusion = answer.plans
        assert (gradient.engine, lime.engine, occlusion.engine) == ("torch-cpu", "onnxruntime-cpu", "onnxruntime-cpu")
        assert lime.features == 2 * 6
        assert not gradient.HasField("features")
        assert not occlusion.HasField("features")


async def test_an_estimate_refuses_what_explain_refuses() -> None:
    spec = good_spec()
    spec.methods.add().guided_backprop.SetInParent()
    async with running_front() as front:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub(front).EstimateExplanation(catalog_pb2.EstimateExplanationRequest(spec=spec))
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            request = catalog_pb2.EstimateExplanationRequest(spec=explain_pb2.ExplainSpec())
            await stub(front).EstimateExplanation(request)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
