"""How many bytes a call will need at most at one time: what comes in, and the maps that may wait to go out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from voxplain.v1 import explain_pb2, tensor_pb2
from voxplain.volume import Geometry

from voxplain_server.service.receive import lay_out
from voxplain_server.workers.outbox import MAX_WAITING_MAPS

_MAP_VALUE_BYTES = 4
_MAPS_OF_A_METHOD = 2
"""The attribution, and its standard error or its coverage."""


def reserved_bytes(spec: explain_pb2.ExplainSpec, grids: Sequence[Geometry]) -> int:
    """Bytes that a call reserves: all its tensors, and its maps as far as they may wait for a slow reader.

    Args:
        spec: with at least one tensor.
        grids: the model's grid of each modality; a map is counted on the larger of this and the client's grids.
    """
    last = lay_out(spec.tensors)[-1]
    sent = max(math.prod(tensor.shape) for tensor in spec.tensors if tensor.role == tensor_pb2.TENSOR_ROLE_VOLUME)
    of_one_method = [_MAP_VALUE_BYTES * max(sent, math.prod(grid.shape)) for grid in grids] * _MAPS_OF_A_METHOD
    with_maps = sum(method.WhichOneof("method") != "modality_shapley" for method in spec.methods)
    waiting = sorted(of_one_method * with_maps, reverse=True)[:MAX_WAITING_MAPS]
    return last.offset + last.size + sum(waiting)
