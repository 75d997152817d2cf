"""A method as it was asked becomes a method with every parameter filled in and checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from google.protobuf.message import Message
from voxplain.v1 import method_pb2
from voxplain_server.methods import all_methods
from voxplain_server.methods.resolve import resolve_method

from tests.fakes import fake_model

SHAPES = [(32, 32, 24)] * 3
MODEL = fake_model(SHAPES)
LATE = fake_model([(32, 32), (24, 24)], late=True)
METHODS = list(all_methods())


def _asked(name: str) -> method_pb2.Method:
    asked = method_pb2.Method()
    getattr(asked, name.replace("-", "_")).SetInParent()
    return asked


def _unset(message: Message, path: str = "") -> Iterator[str]:
    """Paths of fields that have presence and no value, one-ofs counting as set when one member is."""
    for field in message.DESCRIPTOR.fields:
        name = f"{path}{field.name}"
        in_choice = field.containing_oneof is not None and len(field.containing_oneof.fields) > 1
        if field.is_repeated or (in_choice and not message.HasField(field.name)):
            continue
        if not message.HasField(field.name):
            yield name
        elif field.message_type is not None:
            yield from _unset(getattr(message, field.name), f"{name}.")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("model", [MODEL, LATE], ids=["early", "late"])
def test_a_method_asked_with_nothing_gets_its_key_and_every_parameter(name: str, model: object) -> None:
    resolved, violations = resolve_method(_asked(name), MODEL if model is MODEL else LATE)
    assert violations == []
    assert resolved.key == name
    params = getattr(resolved, name.replace("-", "_"))
    left = [path for path in _unset(params) if not path.endswith("grouping_modality")]
    assert left == []
    for field in params.DESCRIPTOR.fields:
        if field.message_type is method_pb2.Baseline.DESCRIPTOR:
            assert getattr(params, field.name).WhichOneof("kind") is not None


@pytest.mark.parametrize("name", METHODS)
def test_resolving_twice_changes_nothing(name: str) -> None:
    once, _ = resolve_method(_asked(name), MODEL)
    again, violations = resolve_method(once, MODEL)
    assert again == once and violations == []


@pytest.mark.parametrize("name", METHODS)
def test_what_was_asked_is_not_changed(name: str) -> None:
    asked = _asked(name)
    resolve_method(asked, MODEL)
    assert asked == _asked(name)


def test_zero_means_zero_and_unset_means_the_default() -> None:
    unset, _ = resolve_method(method_pb2.Method(lime=method_pb2.Lime()), MODEL)
    assert (unset.lime.samples, unset.lime.kernel_width) == (500, 1.0)
    _, violations = resolve_method(method_pb2.Method(lime=method_pb2.Lime(samples=0)), MODEL)
    assert [each.field for each in violations] == ["lime.samples"]
    sigma = method_pb2.Lime(grouping=method_pb2.FeatureGrouping(slic=method_pb2.SlicGrouping(sigma_voxels=0.0)))
    resolved, violations = resolve_method(method_pb2.Method(lime=sigma), MODEL)
    assert violations == [] and resolved.lime.grouping.slic.sigma_voxels == 0.0


def test_a_baseline_set_in_part_gets_the_defaults_of_its_kind() -> None:
    blur = method_pb2.Lime(baseline=method_pb2.Baseline(gaussian_blur=method_pb2.GaussianBlurBaseline()))
    resolved, _ = resolve_method(method_pb2.Method(lime=blur), MODEL)
    assert resolved.lime.baseline.gaussian_blur.sigma_voxels == 4.0
    background = method_pb2.Lime(baseline=method_pb2.Baseline(background=method_pb2.BackgroundBaseline()))
    resolved, _ = resolve_method(method_pb2.Method(lime=background), MODEL)
    assert resolved.lime.baseline.background.HasField("case_index")


def test_a_grouping_set_in_part_gets_the_defaults_of_its_kind() -> None:
    few = method_pb2.KernelShap(grouping=method_pb2.FeatureGrouping(slic=method_pb2.SlicGrouping(segments=7)))
    resolved, violations = resolve_method(method_pb2.Method(kernel_shap=few), MODEL)
    grouping = resolved.kernel_shap.grouping
    assert violations == []
    assert (grouping.slic.segments, grouping.slic.compactness, grouping.slic.sigma_voxels) == (7, 0.1, 2.0)
    assert grouping.shared and grouping.grouping_modality == "t1c"
    grid = method_pb2.Lime(grouping=method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping()))
    resolved, _ = resolve_method(method_pb2.Method(lime=grid), MODEL)
    assert list(resolved.lime.grouping.grid.edge_voxels) == [16]
    assert not resolved.lime.grouping.shared and not resolved.lime.grouping.HasField("grouping_modality")


def test_a_grouping_that_only_says_shared_is_slic() -> None:
    asked = method_pb2.Lime(grouping=method_pb2.FeatureGrouping(shared=True))
    resolved, violations = resolve_method(method_pb2.Method(lime=asked), MODEL)
    assert violations == []
    assert resolved.lime.grouping.slic.segments == 50 and resolved.lime.grouping.grouping_modality == "t1c"


def test_the_grouping_modality_is_the_bundles_else_the_second_else_the_only_one() -> None:
    asked = method_pb2.Method(kernel_shap=method_pb2.KernelShap())
    for model, expected in [
        (replace(MODEL, grouping_modality="t2"), "t2"),
        (MODEL, "t1c"),
        (fake_model(SHAPES[:1]), "t1"),
    ]:
        resolved, _ = resolve_method(asked, model)
        assert resolved.kernel_shap.grouping.grouping_modality == expected


def test_whole_modalities_are_never_shared_by_default() -> None:
    whole = method_pb2.FeatureGrouping(whole_modality=method_pb2.WholeModalityGrouping())
    resolved, violations = resolve_method(method_pb2.Method(kernel_shap=method_pb2.KernelShap(grouping=whole)), MODEL)
    assert violations == [] and resolved.kernel_shap.grouping.HasField("shared") and not resolved.kernel_shap.grouping.shared


def test_a_late_fusion_model_gets_separate_features_unless_its_modalities_are_seen_to_lie_on_one_grid() -> None:
    model = fake_model([(16, 16), (16, 16)], late=True)
    asked = method_pb2.Method(kernel_shap=method_pb2.KernelShap())
    apart, _ = resolve_method(asked, model)
    assert not apart.kernel_shap.grouping.shared
    together, violations = resolve_method(asked, model, one_grid=True)
    assert violations == []
    assert together.kernel_shap.grouping.shared and together.kernel_shap.grouping.grouping_modality == "t1c"


def test_shapes_that_the_tensors_tell_stand_in_for_those_that_the_bundle_leaves_open() -> None:
    model = fake_model([(None, None, None)] * 2)
    asked = method_pb2.Method(occlusion=method_pb2.Occlusion(window=[20], stride=[5]))
    _, unknown = resolve_method(asked, model)
    _, known = resolve_method(asked, model, shapes=[(32, 32, 16)] * 2)
    assert unknown == []
    assert [(each.field, each.reason) for each in known] == [("occlusion.window", "WINDOW_TOO_LARGE")]


def test_a_key_of_ones_own_is_kept_and_a_bad_one_refused() -> None:
    resolved, violations = resolve_method(method_pb2.Method(key="fine-2", occlusion=method_pb2.Occlusion()), MODEL)
    assert resolved.key == "fine-2" and violations == []
    for key in ["Upper", "a b", "../x", "x" * 65, "\u00e9"]:
        _, violations = resolve_method(method_pb2.Method(key=key, occlusion=method_pb2.Occlusion()), MODEL)
        assert [(each.field, each.reason) for each in violations] == [("key", "KEY_INVALID")]
        assert key not in violations[0].message


def test_no_method_is_refused() -> None:
    _, violations = resolve_method(method_pb2.Method(key="x"), MODEL)
    assert [(each.field, each.reason) for each in violations] == [("method", "METHOD_MISSING")]


@pytest.mark.parametrize(
    ("baseline", "field", "reason"),
    [
        (method_pb2.Baseline(), "baseline", "BASELINE_MISSING"),
        (
            method_pb2.Baseline(gaussian_blur=method_pb2.GaussianBlurBaseline(sigma_voxels=0.0)),
            "baseline.gaussian_blur.sigma_voxels",
            "OUT_OF_RANGE",
        ),
        (
            method_pb2.Baseline(gaussian_blur=method_pb2.GaussianBlurBaseline(sigma_voxels=64.5)),
            "baseline.gaussian_blur.sigma_voxels",
            "OUT_OF_RANGE",
        ),
        (
            method_pb2.Baseline(gaussian_blur=method_pb2.GaussianBlurBaseline(sigma_voxels=float("nan"))),
            "baseline.gaussian_blur.sigma_voxels",
            "NOT_FINITE",
        ),
        (
            method_pb2.Baseline(background=method_pb2.BackgroundBaseline(case_index=2**31)),
            "baseline.background.case_index",
            "OUT_OF_RANGE",
        ),
    ],
)
def test_impossible_baselines_are_refused(baseline: method_pb2.Baseline, field: str, reason: str) -> None:
    for name in ("feature_ablation", "kernel_shap", "modality_shapley"):
        asked = method_pb2.Method()
        getattr(asked, name).baseline.CopyFrom(baseline)
        _, violations = resolve_method(asked, MODEL)
        assert [(each.field, each.reason) for each in violations] == [(f"{name}.{field}", reason)]


@pytest.mark.parametrize(
    ("grouping", "field", "reason"),
    [
        (method_pb2.FeatureGrouping(), "grouping", "GROUPING_MISSING"),
        (
            method_pb2.FeatureGrouping(slic=method_pb2.SlicGrouping(segments=0)),
            "grouping.slic.segments",
            "OUT_OF_RANGE",
        ),
        (
            method_pb2.FeatureGrouping(slic=method_pb2.SlicGrouping(segments=2**31)),
            "grouping.slic.segments",
            "OUT_OF_RANGE",
        ),
        (
            method_pb2.FeatureGrouping(slic=method_pb2.SlicGrouping(compactness=0.0)),
            "grouping.slic.compactness",
            "OUT_OF_RANGE",
        ),
        (
            method_pb2.FeatureGrouping(slic=method_pb2.SlicGrouping(compactness=float("inf"))),
            "grouping.slic.compactness",
            "NOT_FINITE",
        ),
        (
            method_pb2.FeatureGrouping(slic=method_pb2.SlicGrouping(sigma_voxels=-1.0)),
            "grouping.slic.sigma_voxels",
            "OUT_OF_RANGE",
        ),
        (
            method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[0])),
            "grouping.grid.edge_voxels",
            "OUT_OF_RANGE",
        ),
        (
            method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[4, 4])),
            "grouping.grid.edge_voxels",
            "WRONG_LENGTH",
        ),
        (method_pb2.FeatureGrouping(shared=True, grouping_modality="pet"), "grouping.grouping_modality", "UNKNOWN_MODALITY"),
        (
            method_pb2.FeatureGrouping(whole_modality=method_pb2.WholeModalityGrouping(), shared=True),
            "grouping.shared",
            "GROUPING_CANNOT_BE_SHARED",
        ),
    ],
)
def test_impossible_groupings_are_refused(grouping: method_pb2.FeatureGrouping, field: str, reason: str) -> None:
    for name in ("feature_ablation", "kernel_shap", "lime", "feature_permutation", "shapley_value_sampling"):
        asked = method_pb2.Method()
        getattr(asked, name).grouping.CopyFrom(grouping)
        _, violations = resolve_method(asked, MODEL)
        assert [(each.field, each.reason) for each in violations] == [(f"{name}.{field}", reason)]


def test_a_shared_grouping_on_a_model_whose_modalities_differ_in_shape_is_refused() -> None:
    asked = method_pb2.Method(lime=method_pb2.Lime(grouping=method_pb2.FeatureGrouping(shared=True)))
    _, violations = resolve_method(asked, LATE)
    assert [(each.field, each.reason) for each in violations] == [("lime.grouping.shared", "GROUPING_NEEDS_ONE_GRID")]


@pytest.mark.parametrize("permutations", [0, 100_001, 2**31])
def test_absurd_permutation_counts_are_refused(permutations: int) -> None:
    asked = method_pb2.Method(shapley_value_sampling=method_pb2.ShapleyValueSampling(permutations=permutations))
    _, violations = resolve_method(asked, MODEL)
    assert [(each.field, each.reason) for each in violations] == [("shapley_value_sampling.permutations", "OUT_OF_RANGE")]


def test_more_evaluations_than_a_plan_can_hold_are_refused() -> None:
    grouping = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[2]))
    asked = method_pb2.ShapleyValueSampling(permutations=100_000, grouping=grouping)
    _, violations = resolve_method(method_pb2.Method(shapley_value_sampling=asked), MODEL)
    assert [(each.field, each.reason) for each in violations] == [("shapley_value_sampling", "TOO_MANY_EVALUATIONS")]


def test_an_enum_value_that_the_contract_does_not_name_is_refused() -> None:
    asked = method_pb2.Method()
    asked.deep_lift.ParseFromString(b"\x10\x63")
    _, violations = resolve_method(asked, MODEL)
    assert [(each.field, each.reason) for each in violations] == [("deep_lift.max_pool_rule", "UNKNOWN_ENUM_VALUE")]
