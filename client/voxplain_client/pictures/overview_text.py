"""What the overview says in words, from what the server said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from voxplain.v1 import explain_pb2

from voxplain_client.pictures.slice_view import Convention

_SCALES: Mapping[int, str] = {
    explain_pb2.SCORE_SCALE_LOGIT: "logit",
    explain_pb2.SCORE_SCALE_PROBABILITY: "probability",
    explain_pb2.SCORE_SCALE_RAW: "raw output",
}
_CONVENTIONS: Mapping[str, str] = {
    "radiological": "Radiological convention: the patient's right (R) is on the left of the picture.",
    "neurological": "Neurological convention: the patient's right (R) is on the right of the picture.",
}
FINISHED = (explain_pb2.OUTCOME_COMPLETED, explain_pb2.OUTCOME_TARGET_ERROR_REACHED)
WITHOUT_MAP = (explain_pb2.OUTCOME_SKIPPED, explain_pb2.OUTCOME_FAILED)


@dataclass(frozen=True, slots=True)
class OverviewText:
    """The header.

    Attributes:
        title: model, version and target.
        answer: what the model answered and how sure it is.
        legend: what the colours and letters mean.
        reading: what the numbers beside the panels mean, and which slice is shown.
        cautions: what limits the answer; empty where nothing does.
        footer: seed, record, versions.
    """

    title: str
    answer: str
    legend: str
    reading: str
    cautions: tuple[str, ...]
    footer: str


def write_header(
    record: explain_pb2.ExplanationRecord,
    *,
    convention: Convention,
    outlined: bool = False,
    slice_given: bool = False,
    unreached: bool = False,
) -> OverviewText:
    """The words of the header for one explanation.

    Args:
        record: of this explanation; of an interrupted one, as far as it is known.
        convention: how left and right are drawn.
        outlined: whether a region is outlined in the panels.
        slice_given: whether somebody chose the slice.
        unreached: whether a map has voxels that no evaluation has reached.
    """
    target = record.prediction.target_name or "the model's output"
    legend = (
        f"Orange: speaks for {target}. Blue: speaks against it. Teal to yellow: strength only, the method gives no sign. "
        "No colour: no effect. Each method has its own scale: compare places within a row, not colours between rows. "
        "Attribution shows what the model used, not what is diseased. " + _CONVENTIONS[convention]
    )
    if outlined:
        legend += " White line: the region that was given."
    if unreached:
        legend += " Hatched: no evaluation has reached these voxels; nothing is known of them."
    chosen = "the one asked for" if slice_given else "the one with most attribution, each method having one vote"
    reading = (
        f"Slice: {chosen}. Under each panel: the modality's share of the method's positive values (without signs: of all) "
        "in the whole volume, whatever this slice shows. Colour bars end at the 99.9th percentile of a method's values; their "
        "left half shows the colours on black, the right half on grey."
    )
    codes = {caution.code: caution.description for caution in record.cautions if not caution.method_key}
    server = f" voxplain {record.voxplain_version}." if record.voxplain_version else ""
    return OverviewText(
        title=f"{record.model}, version {record.version}: what speaks for {target}",
        answer=write_answer(record.prediction),
        legend=legend,
        reading=reading,
        cautions=tuple(f"{code}: {description}" for code, description in codes.items()),
        footer=f"Seed {record.seed}. Explanation {record.explanation_id}." + server,
    )


def mark_interrupted(text: OverviewText, *, finished: Sequence[str], asked: Sequence[str]) -> OverviewText:
    """The header of an explanation that was interrupted.

    Args:
        finished: keys of the methods that had ended.
        asked: keys of all methods.
    """
    missing = ", ".join(key for key in asked if key not in finished)
    told = f"INTERRUPTED: there is no record of this explanation, and these methods had not ended: {missing or 'none'}."
    return replace(text, cautions=(told, *text.cautions))


def write_answer(prediction: explain_pb2.Prediction) -> str:
    """What the model answered, how sure it is, and how near the decision was."""
    scale = _SCALES.get(prediction.scale, "score")
    parts = [f"Explained score: {prediction.score:.4g} ({scale})"]
    known = [score for score in prediction.class_scores if score.HasField("probability")]
    ranked = sorted(known, key=lambda score: -score.probability)[:4]
    if ranked:
        parts.append("the model's probabilities: " + ", ".join(f"{_named(score)} {score.probability:.3g}" for score in ranked))
    elif prediction.class_scores:
        first = sorted(prediction.class_scores, key=lambda score: -score.score)[:4]
        parts.append("the model's scores: " + ", ".join(f"{_named(score)} {score.score:.4g}" for score in first))
    if prediction.HasField("margin_log_odds"):
        margin = prediction.margin_log_odds
        side = "for" if margin > 0 else "against"
        parts.append(f"margin to the decision {margin:+.2f} log-odds ({side} {prediction.target_name or 'it'})")
    if prediction.HasField("decision_threshold"):
        parts.append(f"decision threshold {prediction.decision_threshold:.3g}")
    if prediction.HasField("region_voxels"):
        parts.append(f"averaged over {prediction.region_voxels:,} voxels")
    return "; ".join(parts) + "."


def is_partial(result: explain_pb2.MethodResult) -> bool:
    """Whether the map rests on fewer evaluations than planned, for whatever reason but the standard error aimed at."""
    return result.outcome not in (*FINISHED, *WITHOUT_MAP)


def write_warning(result: explain_pb2.MethodResult) -> str:
    """The mark of a result that is not complete; empty for one that is."""
    if result.outcome == explain_pb2.OUTCOME_COMPLETED:
        return ""
    outcome = outcome_in_words(result.outcome)
    if result.outcome in WITHOUT_MAP:
        return outcome.upper()
    label = "PARTIAL" if is_partial(result) else "STOPPED EARLY"
    return f"{label}: {result.evaluations_done:,} of {result.evaluations_planned:,} evaluations ({outcome})"


def outcome_in_words(outcome: explain_pb2.Outcome.ValueType) -> str:
    """COMPLETED becomes "completed", and so on."""
    return explain_pb2.Outcome.Name(outcome).removeprefix("OUTCOME_").lower().replace("_", " ")


def write_captions(result: explain_pb2.MethodResult) -> dict[str, str]:
    """The share of each modality, as a line under its panel; what a number is. Empty for a map shared by modalities."""
    if result.modality_values:
        return {held.modality: "Shapley value" for held in result.modality_values}
    rows = result.modality_importance
    if result.is_signed:
        total = sum(row.sum_positive for row in rows)
        shares = {row.modality: row.sum_positive for row in rows}
    else:
        total = sum(row.sum_absolute for row in rows)
        shares = {row.modality: row.sum_absolute for row in rows}
    mass = "positive mass" if result.is_signed else "mass"
    if total <= 0:
        return dict.fromkeys(shares, f"no {mass}")
    return {modality: f"{_percent(share / total)} of {mass}" for modality, share in shares.items()}


def write_notes(result: explain_pb2.MethodResult, *, method: str) -> tuple[str, ...]:
    """Short lines about how the map was made and what it is worth."""
    seconds = result.compute_duration.ToNanoseconds() / 1e9
    notes = [method] if method != result.method_key else []
    if result.outcome not in WITHOUT_MAP:
        noun = "evaluation" if result.evaluations_done == 1 else "evaluations"
        notes.append(f"{result.evaluations_done:,} {noun}, {seconds:.3g} s")
    if result.HasField("completeness_gap"):
        notes.append(f"completeness gap {result.completeness_gap:.2g}")
    if result.HasField("standard_error"):
        notes.append(f"standard error {result.standard_error:.2g}")
    notes += [f"assumes: {one.description}" for one in result.assumptions if not one.holds]
    return tuple(notes)


def _named(score: explain_pb2.ClassScore) -> str:
    return score.name or f"class {score.index}"


def _percent(share: float) -> str:
    return "< 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"
