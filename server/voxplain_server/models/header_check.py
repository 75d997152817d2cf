"""Everything that tensor headers alone show, so that a wrong case is refused before a byte is reserved for it."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain.v1 import tensor_pb2

from voxplain_server.models.case_plan import plan_case
from voxplain_server.models.model import Model


def check_tensors(model: Model, tensors: Sequence[tensor_pb2.Tensor]) -> list[str]:
    """Check the declared tensors of a case against a model.

    Args:
        model: the model.
        tensors: the headers, in the order of the request.

    Returns:
        Codes of everything that limits the answer, the model's own cautions included; `describe_cautions` has the words.

    Raises:
        voxplain.errors.InvalidSpec: with a field such as `tensors[2].shape`. Missing, doubled, extra or misnamed modalities;
            wrong roles, ranks, data types, shapes, affines; channels of one input, labels, masks or baselines on another
            grid; a spacing, an orientation or a size that the bundle's `fit` cannot meet; incomplete background cases.
    """
    return list(plan_case(model, tensors).cautions)
