"""Tensors that methods name, and tensors that none does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from voxplain.errors import InvalidSpec
from voxplain.v1 import explain_pb2, method_pb2, tensor_pb2
from voxplain_server.models.model import OutputKind
from voxplain_server.service.check_spec import check_spec
from voxplain_server.settings import Limits
from voxplain_server.workers.catalog import Catalog

from tests.server.service.front import entry, good_spec, model, tensors

BASELINE, LABELS = tensor_pb2.TENSOR_ROLE_BASELINE, tensor_pb2.TENSOR_ROLE_LABELS
BACKGROUND, MASK = tensor_pb2.TENSOR_ROLE_BACKGROUND, tensor_pb2.TENSOR_ROLE_MASK
Spec = explain_pb2.ExplainSpec


def segmentation() -> Catalog:
    made = model()
    return Catalog([entry(replace(made, output=replace(made.output, kind=OutputKind.SEGMENTATION)))])


def declare(spec: Spec, role: tensor_pb2.TensorRole.ValueType) -> None:
    """Declare tensors of a role: one for each modality, or a mask."""
    headers = tensors(prefix="extra-")
    if role == MASK:
        headers = headers[:1]
        headers[0].modality = ""
    for header in headers:
        header.role = role
        header.data_type = tensor_pb2.DATA_TYPE_UINT8 if role in (MASK, LABELS) else header.data_type
    spec.tensors.extend(headers)


def grouped(*, shared: bool = False) -> method_pb2.FeatureGrouping:
    return method_pb2.FeatureGrouping(label_map=method_pb2.LabelMapGrouping(), shared=shared)


def use(spec: Spec, role: tensor_pb2.TensorRole.ValueType) -> None:
    """Ask for something that reads the tensors of a role."""
    if role == BASELINE:
        spec.methods.add().integrated_gradients.baseline.client.SetInParent()
    elif role == LABELS:
        spec.methods.add().feature_ablation.grouping.CopyFrom(grouped())
    elif role == BACKGROUND:
        spec.methods.add().feature_permutation.SetInParent()
    else:
        spec.target.region.mask_tensor_id = "extra-t1"


@pytest.mark.parametrize("role", [BASELINE, LABELS, BACKGROUND, MASK], ids=["baseline", "labels", "background", "mask"])
def test_tensors_that_nothing_reads_are_told_and_others_not(role: tensor_pb2.TensorRole.ValueType) -> None:
    spec = good_spec()
    spec.target.class_ref.index = 1
    declare(spec, role)
    (told,) = [each for each in check_spec(spec, segmentation(), Limits()).cautions if each.code == "TENSOR_UNUSED"]
    assert tensor_pb2.TensorRole.Name(role).removeprefix("TENSOR_ROLE_") in told.description
    use(spec, role)
    assert "TENSOR_UNUSED" not in {each.code for each in check_spec(spec, segmentation(), Limits()).cautions}


def test_background_cases_may_be_read_as_a_baseline() -> None:
    spec = good_spec()
    declare(spec, BACKGROUND)
    spec.methods.add().occlusion.MergeFrom(method_pb2.Occlusion(window=[2]))
    spec.methods[-1].occlusion.fill.background.SetInParent()
    spec.target.class_ref.index = 1
    assert "TENSOR_UNUSED" not in {each.code for each in check_spec(spec, segmentation(), Limits()).cautions}


@pytest.mark.parametrize("named", [True, False])
def test_labels_for_each_modality_are_refused_for_a_shared_grouping_before_they_are_sent(named: bool) -> None:
    """Also where `shared` is the method's default, as it is for kernel-shap."""
    spec = good_spec()
    spec.target.class_ref.index = 1
    declare(spec, LABELS)
    spec.methods.add().kernel_shap.grouping.label_map.SetInParent()
    if named:
        spec.methods[-1].kernel_shap.grouping.shared = True
    with pytest.raises(InvalidSpec) as refused:
        check_spec(spec, segmentation(), Limits())
    assert (refused.value.reason, refused.value.field) == ("LABELS_PER_MODALITY", "methods[1].kernel_shap.grouping.shared")
    spec.methods[-1].kernel_shap.grouping.shared = False
    assert check_spec(spec, segmentation(), Limits()).evaluations["kernel-shap"] > 0


@pytest.mark.parametrize("shared", [True, False])
def test_one_label_map_for_all_modalities_serves_shared_and_separate_groupings(shared: bool) -> None:
    spec = good_spec()
    spec.target.class_ref.index = 1
    declare(spec, LABELS)
    del spec.tensors[-1]
    spec.tensors[-1].modality = ""
    spec.methods.add().kernel_shap.grouping.CopyFrom(grouped(shared=shared))
    assert check_spec(spec, segmentation(), Limits()).evaluations["kernel-shap"] > 0
