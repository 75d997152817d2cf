"""What the model answered and what a map is worth, as the contract tells it."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain.v1 import explain_pb2

from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.method import Remark
from voxplain_server.models.model import Model
from voxplain_server.models.targeting import ResolvedTarget
from voxplain_server.workers.map_making import modality_importance


def make_prediction(model: Model, target: ResolvedTarget) -> explain_pb2.Prediction:
    """What the model answered on the unperturbed case; the plans of the methods are still to be added."""
    return explain_pb2.Prediction(
        class_scores=target.class_scores,
        score=target.value,
        scale=target.scale,
        target=target.target,
        target_name=target.name,
        margin_log_odds=target.margin_log_odds,
        decision_threshold=model.output.decision_threshold,
        region_voxels=target.region_voxels,
    )


def make_result(
    estimate: Estimate,
    *,
    engine: str,
    evaluations: int,
    names: Sequence[str],
    assumptions: Sequence[str],
    remarks: Sequence[Remark],
) -> explain_pb2.MethodResult:
    """The part of a MethodResult that the compute side knows; outcome, plan and times are the front's to fill in.

    Args:
        estimate: what the method found.
        engine: which engine answered.
        evaluations: evaluations or passes that it rests on.
        names: the modalities.
        assumptions: what the method takes for granted on every model; nothing in a graph speaks against them.
        remarks: what limits the method on this model: assumptions that do not hold.
    """
    result = explain_pb2.MethodResult(
        modality_importance=modality_importance(estimate, names),
        evaluations_done=evaluations,
        evaluations_saved=estimate.saved,
        engine=engine,
        layers=estimate.layers,
        is_signed=estimate.signed,
        completeness_gap=estimate.completeness_gap,
        completeness_gap_standard_error=estimate.completeness_gap_standard_error,
        standard_error=estimate.standard_error,
        baseline_score=estimate.baseline_score,
        assumptions=[
            *(
                explain_pb2.Assumption(code=f"ASSUMPTION_{number}", description=words, holds=True)
                for number, words in enumerate(assumptions, 1)
            ),
            *(
                explain_pb2.Assumption(code=remark.reason, description=remark.message, holds=False)
                for remark in remarks
                if not remark.fatal
            ),
        ],
    )
    if estimate.modality_values is not None:
        result.modality_values.extend(
            explain_pb2.ModalityValue(modality=name, value=float(value))
            for name, value in zip(names, estimate.modality_values, strict=True)
        )
    return result
