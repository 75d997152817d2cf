"""Methods take up the tensors that are sent for them: a label map nobody reads would be a silent mistake."""

from __future__ import annotations

from collections.abc import Iterable

from voxplain.v1 import method_pb2, tensor_pb2

from voxplain_client.method_names import make_method


def use_sent_tensors(method: method_pb2.Method | str, tensors: Iterable[tensor_pb2.Tensor]) -> method_pb2.Method:
    """A copy of a method that reads the labels and baselines sent, wherever it says nothing else itself.

    - A grouping whose kind is not set becomes the label map. Where `shared` is not set either, labels for each modality give
      each modality features of its own, and labels without modality give features shared by all.
    - A baseline (occlusion: its fill) whose kind is not set becomes the client's.

    Args:
        method: a message, or a kebab name for all defaults.
        tensors: what the request declares.

    Raises:
        InvalidSpec: METHOD_UNKNOWN.
    """
    used = method_pb2.Method()
    used.CopyFrom(make_method(method) if isinstance(method, str) else method)
    name = used.WhichOneof("method")
    if name is None:
        return used
    sent = list(tensors)
    labels = [tensor for tensor in sent if tensor.role == tensor_pb2.TENSOR_ROLE_LABELS]
    has_baselines = any(tensor.role == tensor_pb2.TENSOR_ROLE_BASELINE for tensor in sent)
    parameters = getattr(used, name)
    for field in parameters.DESCRIPTOR.fields:
        if labels and field.message_type is method_pb2.FeatureGrouping.DESCRIPTOR:
            _group_by_labels(getattr(parameters, field.name), shared=not any(tensor.modality for tensor in labels))
        elif has_baselines and field.message_type is method_pb2.Baseline.DESCRIPTOR:
            baseline: method_pb2.Baseline = getattr(parameters, field.name)
            if baseline.WhichOneof("kind") is None:
                baseline.client.SetInParent()
    return used


def _group_by_labels(grouping: method_pb2.FeatureGrouping, *, shared: bool) -> None:
    # A grouping modality is said of SLIC only, which the server then takes.
    if grouping.WhichOneof("kind") is None and not grouping.HasField("grouping_modality"):
        grouping.label_map.SetInParent()
    if grouping.WhichOneof("kind") == "label_map" and not grouping.HasField("shared"):
        grouping.shared = shared
