"""From what a client asks to be explained to one score with a name."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from voxplain.errors import InvalidSpec, UnsupportedByModel
from voxplain.v1 import explain_pb2

from voxplain_server.models.model import Activation, Model, OutputKind, OutputSpec
from voxplain_server.models.score import Score, class_table, probabilities
from voxplain_server.models.target_check import check_target as check_target
from voxplain_server.models.target_check import class_index
from voxplain_server.models.target_check import supported_scales as supported_scales

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class ResolvedTarget:
    """The score that is explained, and what the model answers.

    Attributes:
        score: reads the score from raw answers.
        target: as asked, with class, scale and region filled in.
        name: for people, for example "irregular", "irregular - round" or "2*A - 0.5*B".
        scale: of the score.
        value: the score on the unperturbed case.
        margin_log_odds: log-odds of the class against the best other; where classes do not exclude each other (sigmoids),
            against the decision threshold, which is 0.5 unless the bundle states one. None for a scalar, a sum, a segmentation
            and a model whose logits are not known.
        class_scores: every class; empty for a scalar and a segmentation.
        region_voxels: of a segmentation's region; None otherwise.
    """

    score: Score
    target: explain_pb2.Target
    name: str
    scale: explain_pb2.ScoreScale.ValueType
    value: float
    margin_log_odds: float | None
    class_scores: tuple[explain_pb2.ClassScore, ...]
    region_voxels: int | None


def resolve_target(
    model: Model, target: explain_pb2.Target, answer: npt.NDArray[np.generic], mask: Mask | None
) -> ResolvedTarget:
    """Fix the score for a case.

    Args:
        model: the model.
        target: as it was asked.
        answer: what the model gave for the unperturbed case at OutputSpec.score_name, batch axis of 1 included.
        mask: Case.mask.

    Raises:
        voxplain.errors.InvalidSpec: as check_target; MASK_UNKNOWN where the region is a mask and none is there.
        voxplain.errors.UnsupportedByModel: ANSWER_NOT_FINITE, EMPTY_REGION, OUTPUT_GRID, SCALE_UNAVAILABLE.
    """
    check_target(model, target)
    output = model.output
    if not np.isfinite(answer).all():
        raise UnsupportedByModel("ANSWER_NOT_FINITE", "On this case the model answers numbers that are not finite.")
    table = class_table(output, answer)
    scale = target.scale or supported_scales(output)[0]
    weights = _weights(output, target, table)
    region = _region(output, target, weights[0][0], table, mask)
    score = Score(output, weights, probability=scale == explain_pb2.SCORE_SCALE_PROBABILITY, region=region)
    single = target.WhichOneof("kind") in (None, "class_ref", "predicted")
    return ResolvedTarget(
        score=score,
        target=_filled(output, target, weights, scale),
        name=_name(output, weights),
        scale=scale,
        value=float(score.of(answer)[0]),
        margin_log_odds=_margin(output, weights[0][0], table) if single else None,
        class_scores=_class_scores(output, table, score),
        region_voxels=None if region is None else int(region.sum()),
    )


def _weights(output: OutputSpec, target: explain_pb2.Target, table: npt.NDArray[np.float64]) -> tuple[tuple[int, float], ...]:
    if output.kind is OutputKind.SCALAR:
        return ((0, 1.0),)
    kind = target.WhichOneof("kind")
    if kind == "class_ref":
        return ((class_index(output, target.class_ref, field="target.class_ref"), 1.0),)
    if kind == "weighted_sum":
        terms = target.weighted_sum.terms
        return tuple((class_index(output, term.class_ref, field="target.weighted_sum"), term.weight) for term in terms)
    return ((_predicted_class(output, table), 1.0),)


def _predicted_class(output: OutputSpec, table: npt.NDArray[np.float64]) -> int:
    if output.kind is not OutputKind.SIGMOID:
        return int(table[0].argmax())
    threshold = 0.5 if output.decision_threshold is None else output.decision_threshold
    return int(table[0, 1] > (threshold if output.activation is Activation.UNKNOWN else _logit(threshold)))


def _region(
    output: OutputSpec, target: explain_pb2.Target, wanted: int, table: npt.NDArray[np.float64], mask: Mask | None
) -> Mask | None:
    if output.kind is not OutputKind.SEGMENTATION:
        return None
    if target.region.WhichOneof("kind") == "mask_tensor_id":
        if mask is None:
            raise InvalidSpec("MASK_UNKNOWN", "The region's mask was not sent.", field="target.region.mask_tensor_id")
        region = mask
    else:
        region = _predicted_region(output, wanted, table)
    if region.shape != table.shape[2:]:
        message = "This model does not answer on the grid of its first input, so no mask can be laid on its answer."
        raise UnsupportedByModel("OUTPUT_GRID", message, field="target.region")
    if not region.any():
        message = "The region is empty: no voxel of this case is in it. Name another class, or send a mask that is not empty."
        raise UnsupportedByModel("EMPTY_REGION", message, field="target.region")
    return region


def _predicted_region(output: OutputSpec, wanted: int, table: npt.NDArray[np.float64]) -> Mask:
    if output.activation is Activation.SIGMOID:
        region: Mask = table[0, wanted] > 0.0
    elif output.activation is Activation.UNKNOWN and np.array_equal(table[0, 0], -table[0, -1]):
        # One channel that holds probabilities already: its two columns are -p and p.
        region = (table[0, 1] > 0.5) == (wanted == 1)
    else:
        region = table[0].argmax(axis=0) == wanted
    return region


def _filled(
    output: OutputSpec,
    target: explain_pb2.Target,
    weights: tuple[tuple[int, float], ...],
    scale: explain_pb2.ScoreScale.ValueType,
) -> explain_pb2.Target:
    filled = explain_pb2.Target(scale=scale)
    if output.kind is OutputKind.SCALAR:
        filled.scalar.SetInParent()
    elif target.WhichOneof("kind") == "weighted_sum":
        for index, weight in weights:
            ref = explain_pb2.ClassRef(name=output.classes[index])
            filled.weighted_sum.terms.add(class_ref=ref, weight=weight)
    else:
        filled.class_ref.name = output.classes[weights[0][0]]
    if output.kind is OutputKind.SEGMENTATION:
        filled.region.CopyFrom(target.region)
        if filled.region.WhichOneof("kind") is None:
            filled.region.predicted.SetInParent()
    return filled


def _name(output: OutputSpec, weights: tuple[tuple[int, float], ...]) -> str:
    if output.kind is OutputKind.SCALAR:
        return output.name
    words = ""
    for index, weight in weights:
        sign = ("-" if weight < 0 else "") if not words else (" - " if weight < 0 else " + ")
        words += sign + ("" if abs(weight) == 1.0 else f"{abs(weight):g}*") + output.classes[index]
    return words


def _margin(output: OutputSpec, wanted: int, table: npt.NDArray[np.float64]) -> float | None:
    if output.kind not in (OutputKind.CLASSES, OutputKind.SIGMOID) or output.activation is Activation.UNKNOWN:
        return None
    logits = table[0]
    threshold = _logit(0.5 if output.decision_threshold is None else output.decision_threshold)
    if output.kind is OutputKind.SIGMOID:
        return float(logits[1] - threshold) * (1.0 if wanted == 1 else -1.0)
    if output.activation is Activation.SIGMOID:
        return float(logits[wanted] - threshold)
    return float(logits[wanted] - np.delete(logits, wanted).max())


def _class_scores(output: OutputSpec, table: npt.NDArray[np.float64], score: Score) -> tuple[explain_pb2.ClassScore, ...]:
    if output.kind not in (OutputKind.CLASSES, OutputKind.SIGMOID):
        return ()
    known = explain_pb2.SCORE_SCALE_PROBABILITY in supported_scales(output)
    shares = probabilities(output, table)[0] if known else None
    found = []
    for index, name in enumerate(output.classes):
        probability = None if shares is None else float(shares[index])
        own = probability if score.probability and probability is not None else float(table[0, index])
        found.append(explain_pb2.ClassScore(index=index, name=name, score=own, probability=probability))
    return tuple(found)


def _logit(probability: float) -> float:
    return math.log(probability) - math.log1p(-probability)
