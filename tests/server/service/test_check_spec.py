"""What a good spec becomes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from voxplain.v1 import explain_pb2, method_pb2, tensor_pb2
from voxplain_server.methods import all_methods
from voxplain_server.models.traits import ModelTraits
from voxplain_server.service.check_spec import check_spec
from voxplain_server.settings import Limits
from voxplain_server.workers.catalog import Catalog
from voxplain_server.workers.expected_time import MAP_SECONDS_PER_VOXEL
from voxplain_server.workers.outbox import MAX_WAITING_MAPS

from tests.server.service.front import SHAPE, catalogue, entry, good_spec, model, tensors


def test_what_is_left_open_is_filled_in_and_the_clients_message_is_not_touched() -> None:
    spec = good_spec()
    before = explain_pb2.ExplainSpec()
    before.CopyFrom(spec)
    checked = check_spec(spec, catalogue(), Limits())
    assert spec == before
    assert checked.spec.version == "2"
    assert checked.spec.HasField("seed")
    assert checked.spec.grid == explain_pb2.GRID_INPUT
    assert checked.spec.target.WhichOneof("kind") == "predicted"
    assert checked.spec.target.scale == explain_pb2.SCORE_SCALE_LOGIT
    assert checked.spec.methods[0].key == "gradient"
    assert checked.spec.methods[0].gradient.HasField("absolute")


def test_a_resolved_spec_resolves_to_itself() -> None:
    once = check_spec(good_spec(), catalogue(), Limits())
    assert check_spec(once.spec, catalogue(), Limits()).spec == once.spec


def test_every_method_that_works_on_a_model_passes_with_its_defaults() -> None:
    traits = ModelTraits(twin_parity=0.0, has_relu=True, cam_layers=("c",), default_cam_layers=("c",), background_cases=1)
    spec = good_spec()
    del spec.methods[:]
    for name in all_methods():
        getattr(spec.methods.add(), name.replace("-", "_")).SetInParent()
    checked = check_spec(spec, Catalog([entry(model(), traits)]), Limits())
    assert set(checked.evaluations) == set(all_methods())
    assert all(count > 0 for count in checked.evaluations.values())


def test_background_cases_of_the_request_are_donors() -> None:
    spec = good_spec()
    del spec.methods[:]
    spec.methods.append(method_pb2.Method(feature_permutation=method_pb2.FeaturePermutation()))
    for header in tensors(prefix="donor-"):
        header.role = tensor_pb2.TENSOR_ROLE_BACKGROUND
        spec.tensors.append(header)
    checked = check_spec(spec, catalogue(), Limits())
    assert not [each for each in checked.cautions if each.code == "NO_DONORS"]


@pytest.mark.parametrize(("bundled", "sent", "donors"), [(0, 1, 1), (0, 3, 3), (2, 0, 2), (5, 2, 2)])
def test_a_method_with_donors_evaluates_every_feature_for_each_of_them(bundled: int, sent: int, donors: int) -> None:
    spec = good_spec()
    del spec.methods[:]
    grouping = method_pb2.FeatureGrouping(slic=method_pb2.SlicGrouping(segments=6), shared=True)
    spec.methods.add().feature_permutation.CopyFrom(method_pb2.FeaturePermutation(grouping=grouping))
    spec.tensors.extend(header for case in range(sent) for header in _background(case))
    checked = check_spec(spec, Catalog([entry(model(), ModelTraits(background_cases=bundled))]), Limits())
    assert checked.evaluations == {"feature-permutation": donors * (6 + 1)}


def _background(case: int) -> list[tensor_pb2.Tensor]:
    headers = tensors(prefix=f"donor-{case}-")
    for header in headers:
        header.role, header.case_index = tensor_pb2.TENSOR_ROLE_BACKGROUND, case
    return headers


def test_a_model_of_any_size_takes_the_clients_shape_for_its_defaults() -> None:
    spec = good_spec()
    spec.model = "wide"
    del spec.methods[:]
    spec.methods.append(method_pb2.Method(occlusion=method_pb2.Occlusion()))
    window = check_spec(spec, catalogue(), Limits()).spec.methods[0].occlusion.window
    assert all(edge <= size for edge, size in zip(window, SHAPE, strict=False))


def test_an_unstated_orientation_is_said() -> None:
    stated = replace(model(), cautions=("ORIENTATION_UNCHECKED",))
    checked = check_spec(good_spec(), Catalog([entry(stated)]), Limits())
    (caution,) = [each for each in checked.cautions if each.code == "ORIENTATION_UNCHECKED"]
    assert caution.description
    assert caution.method_key == ""


@pytest.mark.parametrize(("shape", "seconds"), [((8, 8, 8), 0.5), ((16, 16, 16), 4.0), ((8, 8, 4), 0.25)])
def test_time_is_estimated_for_the_voxels_of_the_case(shape: tuple[int, ...], seconds: float) -> None:
    traits = ModelTraits(twin_parity=0.0, evaluation_seconds=0.5, evaluation_voxels=2 * 8**3)
    spec = explain_pb2.ExplainSpec(model="wide", tensors=tensors(shape))
    spec.methods.add().occlusion.CopyFrom(method_pb2.Occlusion(window=[4], stride=[4]))
    spec.methods.add().gradient.SetInParent()
    checked = check_spec(spec, Catalog([entry(model("wide", shape=(None, None, None)), traits)]), Limits())
    evaluations = checked.evaluations["occlusion"]
    assert evaluations > 1
    handing_over = MAP_SECONDS_PER_VOXEL * 2 * math.prod(shape)
    assert checked.expected.methods["occlusion"] == pytest.approx(seconds * evaluations + handing_over)
    assert checked.expected.methods["gradient"] == pytest.approx(3 * seconds + handing_over)


@pytest.mark.parametrize(
    ("pinned", "named"),
    [
        ({}, None),
        ({"engine": "onnxruntime-cpu", "threads_per_worker": 2, "batch_size": 3, "block_size": 9}, None),
        ({"engine": "onnxruntime-cuda"}, "engine"),
        ({"threads_per_worker": 7}, "threads_per_worker"),
        ({"batch_size": 10**6, "threads_per_worker": 7}, "threads_per_worker, batch_size"),
    ],
)
def test_what_cannot_be_as_pinned_is_said_before_a_byte_comes(pinned: dict[str, Any], named: str | None) -> None:
    spec = good_spec()
    spec.execution.CopyFrom(explain_pb2.Execution(**pinned))
    cautions = check_spec(spec, catalogue(), Limits()).cautions
    told = [each.description for each in cautions if each.code == "EXECUTION_DIFFERS"]
    assert [each.partition(" cannot")[0] for each in told] == ([] if named is None else [named])


def test_maps_are_reserved_as_far_as_they_may_wait() -> None:
    spec = good_spec()
    one = check_spec(spec, catalogue(), Limits()).reserved_bytes
    assert one == 512 + 480 + 2 * 2 * 480
    for index in range(63):
        spec.methods.append(method_pb2.Method(key=f"k{index}", gradient=method_pb2.Gradient()))
    assert check_spec(spec, catalogue(), Limits()).reserved_bytes == 512 + 480 + MAX_WAITING_MAPS * 480
