"""Labels and baselines that are sent are used, unless a method says otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from voxplain.v1 import method_pb2
from voxplain_client.method_names import METHOD_NAMES
from voxplain_client.request import build_request

CUBE = np.ones((4, 4, 4), np.float32)
VARIANTS = {"antithetic-shapley", "leverage-shap", "fold-over-lime"}
WITH_GROUPING = {"feature-ablation", "shapley-value-sampling", "kernel-shap", "feature-permutation", "lime", *VARIANTS}
WITH_BASELINE = {
    *("deep-lift", "gradient-shap", "integrated-gradients", "occlusion", "feature-ablation", "shapley-value-sampling"),
    *("kernel-shap", "lime", "modality-shapley", *VARIANTS),
}


def methods_of(*methods: method_pb2.Method | str, **sent: Any) -> dict[str, Any]:
    """The parameters of each method as they are sent, by kebab name."""
    spec = build_request({"model": "m", "volumes": {"t1": CUBE}, "methods": methods, **sent}).spec  # type: ignore[typeddict-item]
    names = [method.WhichOneof("method") or "" for method in spec.methods]
    return {name.replace("_", "-"): getattr(method, name) for name, method in zip(names, spec.methods, strict=True)}


@pytest.mark.parametrize(("labels", "shared"), [(CUBE, True), ({"t1": CUBE}, False)], ids=["one-map", "by-modality"])
def test_every_method_with_a_grouping_takes_the_labels_that_are_sent(labels: Any, shared: bool) -> None:
    sent = methods_of(*METHOD_NAMES, labels=labels)
    used = {name for name, held in sent.items() if hasattr(held, "grouping") and held.grouping.HasField("label_map")}
    assert used == WITH_GROUPING
    assert {sent[name].grouping.shared for name in used} == {shared}
    assert all(sent[name].grouping.HasField("shared") for name in used)
    assert not any(held.HasField("baseline") for held in sent.values() if hasattr(held, "baseline"))


def test_every_method_with_a_baseline_takes_those_that_are_sent() -> None:
    sent = methods_of(*METHOD_NAMES, baselines={"t1": CUBE})
    parts = {name: getattr(held, "fill" if name == "occlusion" else "baseline", None) for name, held in sent.items()}
    assert {name for name, part in parts.items() if part is not None and part.HasField("client")} == WITH_BASELINE
    assert not any(held.HasField("grouping") for held in sent.values() if hasattr(held, "grouping"))


def test_what_a_method_sets_itself_stands() -> None:
    lime = method_pb2.Method()
    lime.lime.grouping.slic.segments = 7
    lime.lime.baseline.gaussian_blur.SetInParent()
    shap = method_pb2.Method()
    shap.kernel_shap.grouping.shared = False
    permutation = method_pb2.Method()
    permutation.feature_permutation.grouping.grouping_modality = "t1"
    sent = methods_of(lime, shap, permutation, labels=CUBE, baselines={"t1": CUBE})
    assert sent["lime"] == lime.lime
    assert sent["kernel-shap"].grouping.HasField("label_map")
    assert not sent["kernel-shap"].grouping.shared
    assert sent["feature-permutation"] == permutation.feature_permutation


def test_nothing_is_set_where_nothing_is_sent_and_messages_of_the_caller_are_not_changed() -> None:
    mine = method_pb2.Method(key="mine")
    mine.lime.samples = 9
    before = mine.SerializeToString()
    assert methods_of(mine, labels={}, baselines={}, background=[{"t1": CUBE}])["lime"] == mine.lime
    assert methods_of(mine, labels=CUBE)["lime"].samples == 9
    assert mine.SerializeToString() == before


def test_a_label_map_that_is_asked_for_is_shared_as_it_is_sent() -> None:
    shap = method_pb2.Method()
    shap.kernel_shap.grouping.label_map.SetInParent()
    by_modality = methods_of(shap, labels={"t1": CUBE})["kernel-shap"].grouping
    assert by_modality.HasField("shared")
    assert not by_modality.shared
