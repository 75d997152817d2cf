"""The score that is explained, written shortly."""

from __future__ import annotations

from typing import Literal

from voxplain.errors import InvalidSpec
from voxplain.v1 import explain_pb2

TargetLike = explain_pb2.Target | str | int
"""A whole Target, a class's name, or its index."""

ScaleName = Literal["logit", "probability", "raw"]

_SCALES: dict[str, explain_pb2.ScoreScale.ValueType] = {
    "logit": explain_pb2.SCORE_SCALE_LOGIT,
    "probability": explain_pb2.SCORE_SCALE_PROBABILITY,
    "raw": explain_pb2.SCORE_SCALE_RAW,
}


def class_ref(name_or_index: str | int) -> explain_pb2.ClassRef:
    """One class, by name or by index.

    Raises:
        InvalidSpec: TARGET_INVALID, for a negative index.
    """
    if isinstance(name_or_index, str):
        return explain_pb2.ClassRef(name=name_or_index)
    if name_or_index < 0:
        raise InvalidSpec("TARGET_INVALID", "class indices start at 0", field="target")
    return explain_pb2.ClassRef(index=name_or_index)


def contrast(this: str | int, other: str | int) -> explain_pb2.Target:
    """Score of one class minus score of another: why this and not that."""
    terms = [
        explain_pb2.WeightedSum.Term(class_ref=class_ref(this), weight=1.0),
        explain_pb2.WeightedSum.Term(class_ref=class_ref(other), weight=-1.0),
    ]
    return explain_pb2.Target(weighted_sum=explain_pb2.WeightedSum(terms=terms))


def predicted_class() -> explain_pb2.Target:
    """The class with the highest score on the unperturbed case."""
    return explain_pb2.Target(predicted=explain_pb2.PredictedClass())


def make_target(target: TargetLike | None, *, scale: ScaleName | None = None) -> explain_pb2.Target | None:
    """The Target message for what a caller wrote.

    Args:
        target: None: the server's default, the predicted class or the only scalar.
        scale: None: as in `target`, else the server's default, logit.

    Raises:
        InvalidSpec: TARGET_INVALID.
    """
    if target is None and scale is None:
        return None
    made = explain_pb2.Target()
    if isinstance(target, explain_pb2.Target):
        made.CopyFrom(target)
    elif target is not None:
        made.class_ref.CopyFrom(class_ref(target))
    if scale is not None:
        if scale not in _SCALES:
            raise InvalidSpec("TARGET_INVALID", f"scale is one of {', '.join(_SCALES)}", field="target.scale")
        made.scale = _SCALES[scale]
    return made
