"""What an explanation tells while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from voxplain.errors import VoxplainError
from voxplain.v1 import explain_pb2
from voxplain.volume import Geometry

Accepted = explain_pb2.Accepted
Prediction = explain_pb2.Prediction
Progress = explain_pb2.Progress
MethodResult = explain_pb2.MethodResult
Record = explain_pb2.ExplanationRecord


@dataclass(frozen=True, slots=True, eq=False)
class MapReceived:
    """A whole map.

    Attributes:
        header: method, quantity, modalities, grid, and whether it is a snapshot.
        array: read-only; float32, or int32 for labels. Values by label are spread over the voxels already.
        geometry: the voxel grid of `array`, in mm.
        sha256: SHA-256 of the map's bytes, lower-case hexadecimal, as the record holds it.
    """

    header: explain_pb2.Map
    array: npt.NDArray[Any]
    geometry: Geometry
    sha256: str


@dataclass(frozen=True, slots=True)
class Resuming:
    """The call broke or must wait; it will be made again by itself.

    Attributes:
        fault: what ended the call.
        attempt: counts from 1 since the last advance.
        wait_s: seconds until the next call.
        from_checkpoint: False: the compute starts over.
    """

    fault: VoxplainError
    attempt: int
    wait_s: float
    from_checkpoint: bool


Event = (
    explain_pb2.Accepted
    | explain_pb2.Prediction
    | explain_pb2.Progress
    | MapReceived
    | explain_pb2.MethodResult
    | explain_pb2.ExplanationRecord
    | Resuming
)
"""One of the events, told apart with isinstance."""
