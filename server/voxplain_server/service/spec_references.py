"""Whether the tensors that methods refer to were declared, and whether those declared are referred to."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message
from voxplain.errors import InvalidSpec, UnsupportedByModel
from voxplain.v1 import explain_pb2, method_pb2

from voxplain_server.models.case_plan import CasePlan


def check_references(spec: explain_pb2.ExplainSpec, case: CasePlan, *, bundle_cases: int) -> None:
    """Check that resolved methods find the tensors that they name.

    Args:
        spec: with resolved methods.
        case: what the declared tensors are.
        bundle_cases: background cases that the bundle holds.

    Raises:
        InvalidSpec: BASELINE_TENSORS_MISSING, LABEL_TENSORS_MISSING, LABELS_PER_MODALITY or BACKGROUND_CASE_MISSING.
        UnsupportedByModel: NO_DONORS.
    """
    cases = len(case.background) or bundle_cases
    for index, method in enumerate(spec.methods):
        if method.HasField("feature_permutation") and not cases:
            message = "the bundle holds no background cases: send some with the role BACKGROUND"
            raise UnsupportedByModel("NO_DONORS", message, field=f"methods[{index}]")
        for path, message_below in _messages(method, f"methods[{index}]"):
            if isinstance(message_below, method_pb2.Baseline):
                _check_baseline(message_below, path, sent=bool(case.baseline), cases=cases)
            elif isinstance(message_below, method_pb2.FeatureGrouping) and message_below.HasField("label_map"):
                _check_labels(message_below, path, sent=len(case.labels))


def describe_unused(spec: explain_pb2.ExplainSpec, case: CasePlan) -> list[explain_pb2.Caution]:
    """A caution TENSOR_UNUSED for each role of which tensors were declared and nothing of the resolved spec reads them."""
    below = [message for index, method in enumerate(spec.methods) for _, message in _messages(method, f"methods[{index}]")]
    kinds = {each.WhichOneof("kind") for each in below if isinstance(each, method_pb2.Baseline)}
    donors = any(method.HasField("feature_permutation") for method in spec.methods)
    labels = any(isinstance(each, method_pb2.LabelMapGrouping) for each in below)
    by_role = (
        ("BASELINE", bool(case.baseline), "client" in kinds, "set `client` as the baseline of a method that has one"),
        ("LABELS", bool(case.labels), labels, "set `label_map` as the grouping of a method that has one"),
        ("BACKGROUND", bool(case.background), donors or "background" in kinds, "ask for feature-permutation"),
        ("MASK", case.mask is not None, bool(spec.target.region.mask_tensor_id), "name it in the target's region"),
    )
    return [
        explain_pb2.Caution(code="TENSOR_UNUSED", description=f"no method reads the tensors with the role {role}: {remedy}")
        for role, sent, read, remedy in by_role
        if sent and not read
    ]


def _check_labels(grouping: method_pb2.FeatureGrouping, path: str, *, sent: int) -> None:
    if not sent:
        message = "send one tensor with the role LABELS for all modalities, or one for each"
        raise InvalidSpec("LABEL_TENSORS_MISSING", message, field=f"{path}.label_map")
    if grouping.shared and sent > 1:
        message = "a shared grouping needs one label map without modality; send one, or set `shared` to false"
        raise InvalidSpec("LABELS_PER_MODALITY", message, field=f"{path}.shared")


def _check_baseline(baseline: method_pb2.Baseline, path: str, *, sent: bool, cases: int) -> None:
    kind = baseline.WhichOneof("kind")
    if kind == "client" and not sent:
        message = "send one tensor with the role BASELINE for every modality"
        raise InvalidSpec("BASELINE_TENSORS_MISSING", message, field=f"{path}.client")
    if kind == "background" and baseline.background.case_index >= cases:
        message = "neither the call nor the bundle has a background case of this index"
        raise InvalidSpec("BACKGROUND_CASE_MISSING", message, field=f"{path}.background.case_index")


def _messages(message: Message, path: str) -> Iterator[tuple[str, Message]]:
    for descriptor, value in message.ListFields():
        if isinstance(value, Message):
            below = f"{path}.{descriptor.name}"
            yield below, value
            yield from _messages(value, below)
