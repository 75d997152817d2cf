"""What of a target can be refused before the case is there."""

from __future__ import annotations

import math
from collections.abc import Sequence

from voxplain.errors import InvalidSpec, UnsupportedByModel
from voxplain.v1 import explain_pb2, tensor_pb2

from voxplain_server.models.model import Activation, Model, OutputKind, OutputSpec

MAX_TERMS = 64
MAX_WEIGHT = 1e6


def supported_scales(output: OutputSpec) -> tuple[explain_pb2.ScoreScale.ValueType, ...]:
    """Scales on which the answers of a model can be explained, the default first."""
    if output.kind is OutputKind.SCALAR or output.activation is Activation.UNKNOWN:
        return (explain_pb2.SCORE_SCALE_RAW,)
    if output.activation is Activation.NONE:
        # A lone logit has no other reading than through a sigmoid; several may be a softmax's or many sigmoids'.
        lone = (explain_pb2.SCORE_SCALE_PROBABILITY,) if output.kind is OutputKind.SIGMOID else ()
        return (explain_pb2.SCORE_SCALE_LOGIT, *lone, explain_pb2.SCORE_SCALE_RAW)
    return (explain_pb2.SCORE_SCALE_LOGIT, explain_pb2.SCORE_SCALE_PROBABILITY)


def check_target(model: Model, target: explain_pb2.Target, *, tensors: Sequence[tensor_pb2.Tensor] | None = None) -> None:
    """Check a target against a model.

    Args:
        model: the model.
        target: as it was asked; empty: the predicted class, or the scalar.
        tensors: the declared tensors, to find the mask among; None: that is not checked.

    Raises:
        voxplain.errors.InvalidSpec: UNKNOWN_CLASS, CLASS_MISSING, CLASS_DUPLICATED, CLASS_ON_SCALAR, SCALAR_ON_CLASSES,
            TERMS_INVALID, WEIGHT_INVALID, TARGET_REQUIRED, REGION_UNSUPPORTED, REGION_REQUIRED, MASK_UNKNOWN.
        voxplain.errors.UnsupportedByModel: SCALE_UNAVAILABLE.
    """
    output, kind = model.output, target.WhichOneof("kind")
    _check_scale(output, target.scale)
    if output.kind is OutputKind.SCALAR:
        if kind not in (None, "scalar"):
            message = "This model answers one scalar and no classes. Leave the target out, or ask for the scalar."
            raise InvalidSpec("CLASS_ON_SCALAR", message, field=f"target.{kind}")
    elif kind == "scalar":
        message = "This model answers classes and no scalar. Name a class."
        raise InvalidSpec("SCALAR_ON_CLASSES", message, field="target.scalar")
    if output.kind is OutputKind.SEGMENTATION and kind in (None, "predicted"):
        message = "A segmentation predicts a class for each voxel. Name the class that is to be explained."
        raise InvalidSpec("TARGET_REQUIRED", message, field="target")
    if kind == "class_ref":
        class_index(output, target.class_ref, field="target.class_ref")
    elif kind == "weighted_sum":
        _check_sum(output, target.weighted_sum)
    _check_region(output, target, tensors)


def class_index(output: OutputSpec, ref: explain_pb2.ClassRef, *, field: str) -> int:
    """The index of a class.

    Raises:
        voxplain.errors.InvalidSpec: CLASS_MISSING or UNKNOWN_CLASS.
    """
    chosen = ref.WhichOneof("ref")
    if chosen is None:
        raise InvalidSpec("CLASS_MISSING", "A class is named by its name or its index. Give one.", field=field)
    known = ref.name in output.classes if chosen == "name" else ref.index < len(output.classes)
    if not known:
        message = f"The classes of this model are {', '.join(output.classes)}, with indices from 0."
        raise InvalidSpec("UNKNOWN_CLASS", message, field=f"{field}.{chosen}")
    return output.classes.index(ref.name) if chosen == "name" else ref.index


def _check_scale(output: OutputSpec, scale: explain_pb2.ScoreScale.ValueType) -> None:
    scales = supported_scales(output)
    if scale not in (explain_pb2.SCORE_SCALE_UNSPECIFIED, *scales):
        allowed = ", ".join(explain_pb2.ScoreScale.Name(own).removeprefix("SCORE_SCALE_") for own in scales)
        message = (
            f"This model's scores can be explained as {allowed}. For other scales its graph must end in a softmax or a "
            "sigmoid, or its bundle state voxplain.output.activation."
        )
        raise UnsupportedByModel("SCALE_UNAVAILABLE", message, field="target.scale")


def _check_sum(output: OutputSpec, total: explain_pb2.WeightedSum) -> None:
    if not 1 <= len(total.terms) <= MAX_TERMS:
        raise InvalidSpec("TERMS_INVALID", f"A weighted sum has 1 to {MAX_TERMS} terms.", field="target.weighted_sum.terms")
    seen: set[int] = set()
    for number, term in enumerate(total.terms):
        field = f"target.weighted_sum.terms[{number}]"
        index = class_index(output, term.class_ref, field=f"{field}.class_ref")
        if index in seen:
            raise InvalidSpec("CLASS_DUPLICATED", "A class stands in the sum twice. Add its weights up.", field=field)
        seen.add(index)
        if not math.isfinite(term.weight) or not 0.0 < abs(term.weight) <= MAX_WEIGHT:
            message = f"A weight is finite, not zero, and at most {MAX_WEIGHT:g} in size."
            raise InvalidSpec("WEIGHT_INVALID", message, field=f"{field}.weight")


def _check_region(output: OutputSpec, target: explain_pb2.Target, tensors: Sequence[tensor_pb2.Tensor] | None) -> None:
    if output.kind is not OutputKind.SEGMENTATION:
        if target.HasField("region"):
            message = "Only a segmentation's score is averaged over a region, and this model does not segment. Leave it out."
            raise InvalidSpec("REGION_UNSUPPORTED", message, field="target.region")
        return
    if target.region.WhichOneof("kind") != "mask_tensor_id":
        if target.WhichOneof("kind") == "weighted_sum" and len(target.weighted_sum.terms) > 1:
            message = "No class of a sum is the predicted one. Send a tensor with the role MASK, and name it here."
            raise InvalidSpec("REGION_REQUIRED", message, field="target.region")
        return
    masks = None if tensors is None else {own.id for own in tensors if own.role == tensor_pb2.TENSOR_ROLE_MASK}
    if masks is not None and target.region.mask_tensor_id not in masks:
        message = "No tensor with the role MASK has this id. Declare it among the tensors."
        raise InvalidSpec("MASK_UNKNOWN", message, field="target.region.mask_tensor_id")
