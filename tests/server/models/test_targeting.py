"""Which score is explained."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxplain.errors import InvalidSpec, UnsupportedByModel, VoxplainError
from voxplain.v1 import explain_pb2, tensor_pb2
from voxplain_server.models.model import Activation, Model, OutputKind
from voxplain_server.models.targeting import ResolvedTarget, check_target, resolve_target, supported_scales

from tests.server.models.editing import header, model_of

LOGIT, PROBABILITY, RAW = (
    explain_pb2.SCORE_SCALE_LOGIT,
    explain_pb2.SCORE_SCALE_PROBABILITY,
    explain_pb2.SCORE_SCALE_RAW,
)
SOFTMAX = model_of()
LOGITS = model_of(activation=Activation.NONE)
SIGMOID = model_of(kind=OutputKind.SIGMOID, activation=Activation.SIGMOID, classes=("intact", "tear"))
SCALAR = model_of(kind=OutputKind.SCALAR, activation=Activation.NONE, classes=())
SEGMENTATION = model_of(kind=OutputKind.SEGMENTATION, classes=("background", "tumour"))
ANSWER = np.array([[0.5, 2.0, -1.0]], dtype=np.float32)


def _class(name: str = "", *, index: int = 0, **stated: Any) -> explain_pb2.Target:
    ref = explain_pb2.ClassRef(name=name) if name else explain_pb2.ClassRef(index=index)
    return explain_pb2.Target(class_ref=ref, **stated)


def _sum(*terms: tuple[str, float], **stated: Any) -> explain_pb2.Target:
    listed = [explain_pb2.WeightedSum.Term(class_ref=explain_pb2.ClassRef(name=name), weight=weight) for name, weight in terms]
    return explain_pb2.Target(weighted_sum=explain_pb2.WeightedSum(terms=listed), **stated)


def _predicted(**stated: Any) -> explain_pb2.Target:
    return explain_pb2.Target(predicted=explain_pb2.PredictedClass(), **stated)


def _resolve(
    model: Model,
    target: explain_pb2.Target,
    answer: npt.NDArray[np.float32] = ANSWER,
    mask: npt.NDArray[np.bool_] | None = None,
) -> ResolvedTarget:
    return resolve_target(model, target, answer, mask)


def _refusal(model: Model, target: explain_pb2.Target, **stated: Any) -> tuple[type[VoxplainError], str, str]:
    with pytest.raises(VoxplainError) as caught:
        check_target(model, target, **stated)
    assert "secret" not in caught.value.message
    return type(caught.value), caught.value.reason, caught.value.field


@pytest.mark.parametrize("target", [explain_pb2.Target(), _predicted(), _class("irregular"), _class(index=1)])
def test_a_class_is_found_by_prediction_name_or_index(target: explain_pb2.Target) -> None:
    resolved = _resolve(SOFTMAX, target)
    assert resolved.score.weights == ((1, 1.0),)
    assert (resolved.name, resolved.value, resolved.scale) == ("irregular", 2.0, LOGIT)
    assert resolved.target == _class("irregular", scale=LOGIT)
    assert resolved.margin_log_odds == pytest.approx(1.5)
    assert resolved.region_voxels is None


def test_a_class_that_was_not_predicted_has_a_negative_margin() -> None:
    assert _resolve(SOFTMAX, _class("none")).margin_log_odds == pytest.approx(-3.0)


def test_on_the_probability_scale_score_and_classes_are_probabilities_and_the_margin_stays() -> None:
    resolved = _resolve(SOFTMAX, _class("irregular", scale=PROBABILITY))
    expected = np.exp(ANSWER[0].astype(float)) / np.exp(ANSWER[0].astype(float)).sum()
    assert resolved.value == pytest.approx(expected[1])
    assert [own.score for own in resolved.class_scores] == pytest.approx(list(expected))
    assert resolved.margin_log_odds == pytest.approx(1.5)


def test_class_scores_carry_probabilities_where_the_activation_is_known() -> None:
    known, unknown = _resolve(SOFTMAX, _predicted()).class_scores, _resolve(LOGITS, _predicted()).class_scores
    assert sum(own.probability for own in known) == pytest.approx(1.0)
    assert [(own.index, own.name, own.score) for own in known] == [(0, "round", 0.5), (1, "irregular", 2.0), (2, "none", -1.0)]
    assert not any(own.HasField("probability") for own in unknown)


@pytest.mark.parametrize(
    ("terms", "name"),
    [
        ([("irregular", 1.0), ("round", -1.0)], "irregular - round"),
        ([("irregular", 2.0), ("round", -0.5)], "2*irregular - 0.5*round"),
        ([("round", -1.0), ("none", 3.0)], "-round + 3*none"),
        ([("round", 1.0)], "round"),
    ],
)
def test_a_sum_is_named_as_it_is_read(terms: list[tuple[str, float]], name: str) -> None:
    resolved = _resolve(SOFTMAX, _sum(*terms))
    assert resolved.name == name
    assert resolved.margin_log_odds is None
    assert resolved.target.weighted_sum == _sum(*terms).weighted_sum


@given(st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3), st.permutations(range(3)))
@settings(deadline=None)
def test_a_contrast_is_the_difference_of_two_scores(logits: list[float], order: list[int]) -> None:
    answer = np.array([logits], dtype=np.float32)
    names = [SOFTMAX.output.classes[index] for index in order]
    contrast = _resolve(SOFTMAX, _sum((names[0], 1.0), (names[1], -1.0)), answer)
    first, second = (_resolve(SOFTMAX, _class(name), answer).value for name in names[:2])
    assert contrast.value == first - second


@given(st.floats(-30, 30, width=32))
@settings(deadline=None)
def test_of_one_sigmoid_output_class_one_is_the_logit_and_class_zero_its_negative(logit: float) -> None:
    answer = np.array([[logit]], dtype=np.float32)
    zero, one = _resolve(SIGMOID, _class(index=0), answer), _resolve(SIGMOID, _class(index=1), answer)
    assert (zero.value, one.value) == (-float(answer[0, 0]), float(answer[0, 0]))
    shares = [_resolve(SIGMOID, _class(index=index, scale=PROBABILITY), answer).value for index in (0, 1)]
    assert sum(shares) == pytest.approx(1.0)
    assert _resolve(SIGMOID, _predicted(), answer).name == ("tear" if logit > 0 else "intact")


def test_the_threshold_of_a_bundle_decides_and_sets_the_margin() -> None:
    model = model_of(kind=OutputKind.SIGMOID, activation=Activation.SIGMOID, classes=("intact", "tear"), threshold=0.8)
    answer = np.array([[1.0]], dtype=np.float32)  # A probability of 0.73, below 0.8.
    resolved = _resolve(model, _predicted(), answer)
    assert resolved.name == "intact"
    assert resolved.margin_log_odds == pytest.approx(math.log(4) - 1.0)
    assert _resolve(model, _class("tear"), answer).margin_log_odds == pytest.approx(1.0 - math.log(4))


def test_classes_that_do_not_exclude_each_other_have_the_threshold_as_their_margin() -> None:
    model = model_of(activation=Activation.SIGMOID)
    assert _resolve(model, _class("round")).margin_log_odds == pytest.approx(0.5)
    assert _resolve(model, _class("none")).margin_log_odds == pytest.approx(-1.0)


@pytest.mark.parametrize("target", [explain_pb2.Target(), explain_pb2.Target(scalar=explain_pb2.ScalarOutput())])
@pytest.mark.parametrize("answer", [np.array([[63.5]], np.float32), np.array([63.5], np.float32)])
def test_a_scalar_is_explained_as_it_is(target: explain_pb2.Target, answer: npt.NDArray[np.float32]) -> None:
    resolved = _resolve(SCALAR, target, answer)
    assert (resolved.value, resolved.scale, resolved.margin_log_odds, resolved.class_scores) == (63.5, RAW, None, ())
    assert resolved.target.WhichOneof("kind") == "scalar"
    assert resolved.name == "pred"


# Segmentation.


def _field(seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(1, 2, 3, 4, 5)).astype(np.float32)


def test_a_segmentations_score_is_the_mean_over_the_predicted_region() -> None:
    answer = _field()
    resolved = _resolve(SEGMENTATION, _class("tumour"), answer)
    region = answer[0, 1] > answer[0, 0]
    assert resolved.score.region is not None
    np.testing.assert_array_equal(resolved.score.region, region)
    assert resolved.region_voxels == region.sum()
    assert resolved.value == pytest.approx(answer[0, 1][region].astype(np.float64).mean(), rel=1e-12)
    assert resolved.target.region.WhichOneof("kind") == "predicted"
    assert (resolved.margin_log_odds, resolved.class_scores) == (None, ())


def test_the_region_of_sigmoid_channels_is_where_the_class_is_above_one_half() -> None:
    model = model_of(kind=OutputKind.SEGMENTATION, activation=Activation.SIGMOID, classes=("core", "oedema"))
    answer = _field()
    resolved = _resolve(model, _class("oedema"), answer)
    np.testing.assert_array_equal(resolved.score.region, answer[0, 1] > 0)


@pytest.mark.parametrize(
    ("activation", "level"), [(Activation.SIGMOID, 0.0), (Activation.NONE, 0.0), (Activation.UNKNOWN, 0.5)]
)
def test_one_channel_segments_where_it_is_above_one_half(activation: Activation, level: float) -> None:
    model = model_of(kind=OutputKind.SEGMENTATION, activation=activation, classes=("background", "tumour"))
    answer = np.abs(_field()[:, :1]) if activation is Activation.UNKNOWN else _field()[:, :1]
    np.testing.assert_array_equal(_resolve(model, _class("tumour"), answer).score.region, answer[0, 0] > level)
    np.testing.assert_array_equal(_resolve(model, _class("background"), answer).score.region, answer[0, 0] <= level)


def test_a_mask_of_the_client_is_the_region() -> None:
    answer, mask = _field(), np.zeros((3, 4, 5), dtype=np.bool_)
    mask[1:, 2:] = True
    target = _sum(("tumour", 1.0), ("background", -1.0), region=explain_pb2.Region(mask_tensor_id="m"))
    resolved = _resolve(SEGMENTATION, target, answer, mask)
    assert resolved.region_voxels == mask.sum()
    assert resolved.value == pytest.approx((answer[0, 1] - answer[0, 0])[mask].astype(np.float64).mean(), rel=1e-6)
    assert resolved.target.region.mask_tensor_id == "m"


def test_an_empty_region_is_refused() -> None:
    answer = np.stack([np.ones((3, 4, 5)), np.zeros((3, 4, 5))])[None].astype(np.float32)
    with pytest.raises(UnsupportedByModel) as caught:
        _resolve(SEGMENTATION, _class("tumour"), answer)
    assert caught.value.reason == "EMPTY_REGION"
    target = _class("tumour", region=explain_pb2.Region(mask_tensor_id="m"))
    with pytest.raises(UnsupportedByModel) as caught:
        _resolve(SEGMENTATION, target, answer, np.zeros((3, 4, 5), np.bool_))
    assert caught.value.reason == "EMPTY_REGION"


def test_a_mask_that_does_not_lie_on_the_answer_is_refused() -> None:
    target = _class("tumour", region=explain_pb2.Region(mask_tensor_id="m"))
    with pytest.raises(UnsupportedByModel) as caught:
        _resolve(SEGMENTATION, target, _field(), np.ones((6, 8, 10), np.bool_))
    assert caught.value.reason == "OUTPUT_GRID"
    with pytest.raises(InvalidSpec) as missing:
        _resolve(SEGMENTATION, target, _field())
    assert missing.value.reason == "MASK_UNKNOWN"


def test_an_answer_that_is_not_finite_is_refused() -> None:
    with pytest.raises(UnsupportedByModel) as caught:
        _resolve(SOFTMAX, _predicted(), np.array([[np.nan, 1.0, 2.0]], np.float32))
    assert caught.value.reason == "ANSWER_NOT_FINITE"


# Refused on the spec.


@pytest.mark.parametrize(
    ("model", "target", "reason", "field"),
    [
        (SOFTMAX, _class("secret"), "UNKNOWN_CLASS", "target.class_ref.name"),
        (SOFTMAX, _class(index=3), "UNKNOWN_CLASS", "target.class_ref.index"),
        (SIGMOID, _class(index=2), "UNKNOWN_CLASS", "target.class_ref.index"),
        (SOFTMAX, explain_pb2.Target(class_ref=explain_pb2.ClassRef()), "CLASS_MISSING", "target.class_ref"),
        (SOFTMAX, _sum(), "TERMS_INVALID", "target.weighted_sum.terms"),
        (SOFTMAX, _sum(("round", 1.0), ("secret", 1.0)), "UNKNOWN_CLASS", "target.weighted_sum.terms[1].class_ref.name"),
        (SOFTMAX, _sum(("round", 1.0), ("round", -1.0)), "CLASS_DUPLICATED", "target.weighted_sum.terms[1]"),
        (SOFTMAX, _sum(("round", 0.0)), "WEIGHT_INVALID", "target.weighted_sum.terms[0].weight"),
        (SOFTMAX, _sum(("round", math.nan)), "WEIGHT_INVALID", "target.weighted_sum.terms[0].weight"),
        (SOFTMAX, _sum(("round", math.inf)), "WEIGHT_INVALID", "target.weighted_sum.terms[0].weight"),
        (SOFTMAX, _sum(*[("round", 1.0)] * 65), "TERMS_INVALID", "target.weighted_sum.terms"),
        (SOFTMAX, explain_pb2.Target(scalar=explain_pb2.ScalarOutput()), "SCALAR_ON_CLASSES", "target.scalar"),
        (SCALAR, _class("round"), "CLASS_ON_SCALAR", "target.class_ref"),
        (SCALAR, _predicted(), "CLASS_ON_SCALAR", "target.predicted"),
        (SCALAR, _sum(("round", 1.0)), "CLASS_ON_SCALAR", "target.weighted_sum"),
        (SEGMENTATION, explain_pb2.Target(), "TARGET_REQUIRED", "target"),
        (SEGMENTATION, _predicted(), "TARGET_REQUIRED", "target"),
        (SEGMENTATION, _sum(("tumour", 1.0), ("background", -1.0)), "REGION_REQUIRED", "target.region"),
        (SOFTMAX, _class("round", region=explain_pb2.Region()), "REGION_UNSUPPORTED", "target.region"),
    ],
)
def test_a_target_that_cannot_be_is_refused(model: Model, target: explain_pb2.Target, reason: str, field: str) -> None:
    assert _refusal(model, target) == (InvalidSpec, reason, field)


def test_a_mask_must_be_among_the_tensors() -> None:
    target = _class("tumour", region=explain_pb2.Region(mask_tensor_id="secret"))
    mask = header("secret", role=tensor_pb2.TENSOR_ROLE_MASK, modality="", data_type=tensor_pb2.DATA_TYPE_UINT8)
    expected = (InvalidSpec, "MASK_UNKNOWN", "target.region.mask_tensor_id")
    assert _refusal(SEGMENTATION, target, tensors=[header()]) == expected
    assert _refusal(SEGMENTATION, target, tensors=[header("secret")]) == expected
    check_target(SEGMENTATION, target, tensors=[header(), mask])


@pytest.mark.parametrize(
    ("model", "scales"),
    [
        (SOFTMAX, (LOGIT, PROBABILITY)),
        (LOGITS, (LOGIT, RAW)),
        (model_of(activation=Activation.UNKNOWN), (RAW,)),
        (SIGMOID, (LOGIT, PROBABILITY)),
        (model_of(kind=OutputKind.SIGMOID, activation=Activation.NONE, classes=("a", "b")), (LOGIT, PROBABILITY, RAW)),
        (SCALAR, (RAW,)),
    ],
)
def test_only_scales_that_the_graph_gives_can_be_asked_for(model: Model, scales: tuple[int, ...]) -> None:
    assert supported_scales(model.output) == scales
    for scale in (LOGIT, PROBABILITY, RAW):
        if scale in scales:
            check_target(model, explain_pb2.Target(scale=scale))
        else:
            expected = (UnsupportedByModel, "SCALE_UNAVAILABLE", "target.scale")
            assert _refusal(model, explain_pb2.Target(scale=scale)) == expected
