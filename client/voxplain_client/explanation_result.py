"""All that an explanation gave, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from voxplain.v1 import explain_pb2

from voxplain_client.events import MapReceived

MapsByMethod = Mapping[str, Mapping[str, MapReceived]]
"""Method key, then modality. A map shared by several modalities stands under each of them."""


@dataclass(frozen=True, slots=True, eq=False)
class ExplanationResult:
    """The maps, and what they are worth.

    Attributes:
        accepted: the request as the server understood it.
        prediction: what the model answered.
        maps: the final attribution maps.
        standard_errors: standard error of each voxel, where the method has one.
        coverages: share of the evaluations that reach a voxel, where a method was stopped early.
        results: by method key: outcome, importance, gap, standard error, times.
        record: what reproduces the maps; save it with `google.protobuf.json_format`.
    """

    accepted: explain_pb2.Accepted
    prediction: explain_pb2.Prediction
    record: explain_pb2.ExplanationRecord
    results: Mapping[str, explain_pb2.MethodResult]
    maps: MapsByMethod = field(default_factory=dict)
    standard_errors: MapsByMethod = field(default_factory=dict)
    coverages: MapsByMethod = field(default_factory=dict)
