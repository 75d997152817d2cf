"""Whatever is wrong with a spec: the right code, a typed reason, the field, nothing reserved, and the server goes on."""

from __future__ import annotations

import math
from collections.abc import Callable

import grpc
import pytest
from voxplain.v1 import explain_pb2, method_pb2, tensor_pb2

from tests.server.service.front import (
    good_spec,
    only_method,
    running_front,
    tensors,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNSUPPORTED = grpc.StatusCode.FAILED_PRECONDITION
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
CLIENT_BASELINE = method_pb2.Baseline(client=method_pb2.ClientBaseline())
BACKGROUND_BASELINE = method_pb2.Baseline(background=method_pb2.BackgroundBaseline())
Spec = explain_pb2.ExplainSpec
Change = Callable[[Spec], object]


def occlusion(spec: Spec, **params: object) -> None:
    only_method(spec).occlusion.CopyFrom(method_pb2.Occlusion(**params))  # type: ignore[arg-type]


def slic(spec: Spec, segments: int) -> None:
    grouping = method_pb2.FeatureGrouping(slic=method_pb2.SlicGrouping(segments=segments))
    only_method(spec).feature_ablation.grouping.CopyFrom(grouping)


SPECS: list[tuple[str, Change, grpc.StatusCode, str, str]] = [
    ("unknown model", lambda s: setattr(s, "model", "nobody"), NOT_FOUND, "MODEL_NOT_FOUND", "model"),
    ("no model", lambda s: s.ClearField("model"), INVALID, "MODEL_MISSING", "model"),
    ("refused model", lambda s: setattr(s, "model", "broken"), NOT_FOUND, "MODEL_REFUSED", "model"),
    ("unknown version", lambda s: setattr(s, "version", "9"), NOT_FOUND, "VERSION_NOT_FOUND", "version"),
    ("no method", lambda s: s.ClearField("methods"), INVALID, "METHOD_COUNT", "methods"),
    ("65 methods", lambda s: s.methods.extend(s.methods[:1] * 64), INVALID, "METHOD_COUNT", "methods"),
    ("a method without its message", lambda s: s.methods.add(key="x"), INVALID, "METHOD_MISSING", "methods[1].method"),
    ("a doubled key", lambda s: s.methods.extend(s.methods[:1]), INVALID, "KEY_DOUBLED", "methods[1].key"),
    ("a bad key", lambda s: setattr(s.methods[0], "key", "A b"), INVALID, "KEY_INVALID", "methods[0].key"),
    (
        "a method that the model cannot do",
        lambda s: s.methods.add().guided_backprop.SetInParent(),
        UNSUPPORTED,
        "NO_RELU",
        "methods[1]",
    ),
    ("zero samples", lambda s: only_method(s).smooth_grad.MergeFrom(method_pb2.SmoothGrad(samples=0)), INVALID, "OUT_OF_RANGE",
     "methods[0].smooth_grad.samples"),
    ("2^31 samples", lambda s: only_method(s).kernel_shap.MergeFrom(method_pb2.KernelShap(samples=2**31)), INVALID,
     "OUT_OF_RANGE", "methods[0].kernel_shap.samples"),
    ("2^31 segments", lambda s: slic(s, 2**31), INVALID, "OUT_OF_RANGE",
     "methods[0].feature_ablation.grouping.slic.segments"),
    ("NaN noise", lambda s: only_method(s).smooth_grad.MergeFrom(method_pb2.SmoothGrad(noise_std=math.nan)), INVALID,
     "NOT_FINITE", "methods[0].smooth_grad.noise_std"),
    ("a window larger than the volume", lambda s: occlusion(s, window=[9]), INVALID, "WINDOW_TOO_LARGE",
     "methods[0].occlusion.window"),
    ("a stride of zero", lambda s: occlusion(s, window=[2], stride=[0]), INVALID, "OUT_OF_RANGE",
     "methods[0].occlusion.stride"),
    ("baseline volumes that are not declared", lambda s: occlusion(s, fill=CLIENT_BASELINE), INVALID,
     "BASELINE_TENSORS_MISSING", "methods[0].occlusion.fill.client"),
    ("a background case that nobody has", lambda s: occlusion(s, fill=BACKGROUND_BASELINE), INVALID,
     "BACKGROUND_CASE_MISSING", "methods[0].occlusion.fill.background.case_index"),
    ("labels that are not declared",
     lambda s: only_method(s).feature_ablation.grouping.label_map.SetInParent(), INVALID, "LABEL_TENSORS_MISSING",
     "methods[0].feature_ablation.grouping.label_map"),
    ("no donors", lambda s: only_method(s).feature_permutation.SetInParent(), UNSUPPORTED, "NO_DONORS", "methods[0]"),
    ("an unknown class", lambda s: setattr(s.target.class_ref, "name", "mela"), INVALID, "UNKNOWN_CLASS",
     "target.class_ref.name"),
    ("a class index out of range", lambda s: setattr(s.target.class_ref, "index", 2), INVALID, "UNKNOWN_CLASS",
     "target.class_ref.index"),
    ("a scalar of a classifier", lambda s: s.target.scalar.SetInParent(), INVALID, "SCALAR_ON_CLASSES", "target.scalar"),
    ("a missing modality", lambda s: s.tensors.pop(), INVALID, "MODALITY_MISSING", "tensors"),
    ("a doubled modality", lambda s: setattr(s.tensors[1], "modality", "t1"), INVALID, "MODALITY_DUPLICATED",
     "tensors[1].modality"),
    ("an extra modality", lambda s: s.tensors.extend(extra("flair")), INVALID, "MODALITY_UNKNOWN", "tensors[2].modality"),
    ("a misnamed modality", lambda s: setattr(s.tensors[0], "modality", "T1"), INVALID, "MODALITY_UNKNOWN",
     "tensors[0].modality"),
    ("a doubled tensor id", lambda s: setattr(s.tensors[1], "id", "t1"), INVALID, "TENSOR_ID_DUPLICATED", "tensors[1].id"),
    ("a bad tensor id", lambda s: setattr(s.tensors[1], "id", "a/b"), INVALID, "TENSOR_ID_INVALID", "tensors[1].id"),
    ("no role", lambda s: s.tensors[1].ClearField("role"), INVALID, "ROLE_INVALID", "tensors[1].role"),
    ("a wrong type", lambda s: setattr(s.tensors[1], "data_type", tensor_pb2.DATA_TYPE_INT32), INVALID, "DTYPE_MISMATCH",
     "tensors[1].data_type"),
    ("a wrong rank", lambda s: s.tensors[1].shape.pop(), INVALID, "RANK_MISMATCH", "tensors[1].shape"),
    ("a wrong shape", lambda s: s.tensors[0].shape.__setitem__(0, 7), INVALID, "SHAPE_MISMATCH", "tensors[0].shape"),
    ("an empty axis", lambda s: s.tensors[0].shape.__setitem__(0, 0), INVALID, "SHAPE_INVALID", "tensors[0].shape"),
    ("an affine of 12 numbers", lambda s: s.tensors[0].affine.__delitem__(slice(12, 16)), INVALID, "AFFINE_INVALID",
     "tensors[0].affine"),
    ("channels on different grids", lambda s: s.tensors[1].affine.__setitem__(3, 0.02), INVALID, "GRID_MISMATCH",
     "tensors[1].affine"),
    ("a budget of zero", lambda s: setattr(s.budget, "max_evaluations", 0), INVALID, "BUDGET_INVALID",
     "budget.max_evaluations"),
    ("a target error of zero", lambda s: setattr(s.budget, "target_standard_error", 0.0), INVALID, "BUDGET_INVALID",
     "budget.target_standard_error"),
    ("a NaN target error", lambda s: setattr(s.budget, "target_standard_error", math.nan), INVALID, "BUDGET_INVALID",
     "budget.target_standard_error"),
    ("a negative deadline", lambda s: setattr(s.budget.soft_deadline, "seconds", -1), INVALID, "DURATION_INVALID",
     "budget.soft_deadline"),
    ("a snapshot interval of zero", lambda s: s.snapshot_interval.SetInParent(), INVALID, "DURATION_INVALID",
     "snapshot_interval"),
    ("a long request id", lambda s: setattr(s, "request_id", "x" * 129), INVALID, "REQUEST_ID_TOO_LONG", "request_id"),
    ("a large checkpoint", lambda s: setattr(s, "checkpoint", bytes(3 << 20)), EXHAUSTED, "CHECKPOINT_TOO_LARGE",
     "checkpoint"),
    ("an unknown grid", lambda s: setattr(s, "grid", 77), INVALID, "UNKNOWN_ENUM_VALUE", "grid"),
    ("a strange engine", lambda s: setattr(s.execution, "engine", "a b"), INVALID, "ENGINE_INVALID", "execution.engine"),
    ("too many tensors", lambda s: s.tensors.extend(extra("t1") * 300), EXHAUSTED, "TOO_MANY_TENSORS", "tensors"),
]  # fmt: skip


def extra(modality: str) -> list[tensor_pb2.Tensor]:
    header = tensors()[0]
    header.id, header.modality = "extra", modality
    return [header]


@pytest.mark.parametrize(("change", "code", "reason", "field"), [row[1:] for row in SPECS], ids=[row[0] for row in SPECS])
async def test_a_wrong_spec_is_refused_before_anything_is_reserved(
    change: Change, code: grpc.StatusCode, reason: str, field: str
) -> None:
    spec = good_spec()
    change(spec)
    async with running_front() as front:
        refused = await front.refusal(spec)
        assert (refused.code, refused.reason, refused.fields) == (code, reason, [field])
        assert refused.message
        assert front.metrics.registry.get_sample_value("voxplain_refused_calls_total", {"reason": reason}) == 1
        assert "call_started" not in front.log.getvalue()
        assert (await front.explain())[-1].WhichOneof("event") == "summary"
