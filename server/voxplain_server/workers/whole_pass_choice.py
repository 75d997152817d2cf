"""Chooses what computes whole passes of a model: ONNX Runtime, or the twin where it is measured to be faster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from voxplain.v1 import explain_pb2

from voxplain_server.engines.engine import Evaluator
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.graph.unsupported_operator import UnsupportedOperator
from voxplain_server.models.case import Case
from voxplain_server.models.loading import LoadedModel
from voxplain_server.workers.execution import resolve_execution
from voxplain_server.workers.faults import describe_fault
from voxplain_server.workers.probe_timing import PARITY_BOUND, any_score, effect_difference, timed

CLEARLY_FASTER = 1.15
"""The twin wins from this ratio on."""
WORTH_MEASURING = 0.05
"""Seconds of a pass below which the choice is not worth a measurement: ONNX Runtime it is."""
_WINDOWS = 4


@dataclass(frozen=True, slots=True, eq=False)
class WholePasses:
    """What computes whole passes.

    Attributes:
        engine: the one chosen.
        names: of all that can.
        seconds: of one evaluation by the one chosen.
        reason: why, in plain words; empty where there was nothing to choose.
    """

    engine: Evaluator
    names: tuple[str, ...]
    seconds: float
    reason: str = ""


def choose_whole_passes(
    loaded: LoadedModel,
    onnx: Evaluator,
    case: Case,
    windows: list[Perturbation],
    *,
    preferred: str,
    pass_seconds: float,
    threads: int,
    device: Literal["cpu", "cuda"],
) -> WholePasses:
    """Measure both where a pass takes long enough.

    Args:
        loaded: the model.
        onnx: ONNX Runtime.
        case: of the model's shapes.
        windows: some perturbations of it.
        preferred: what the operator wants, or "auto".
        pass_seconds: what a pass of ONNX Runtime took.
        threads: compute threads.
        device: where it computes.
    """
    # torch takes seconds: who never checks a model does without.
    from voxplain_server.engines.torch_evaluator import TorchEvaluator
    from voxplain_server.graph.twin import build_twin

    only_onnx = WholePasses(onnx, (onnx.name,), pass_seconds)
    try:
        twin = build_twin(loaded.graph, outputs=[loaded.model.output.score_name])
        torch = TorchEvaluator(twin, loaded.model, device=device, threads=threads)
        names = (onnx.name, torch.name)
        if preferred == "torch":
            return WholePasses(torch, names, pass_seconds, "the operator's choice")
        if preferred == "onnxruntime" or device == "cuda" or pass_seconds < WORTH_MEASURING:
            return WholePasses(onnx, names, pass_seconds)
        batch = resolve_execution(case.model, explain_pb2.ExplainSpec(), engine=onnx.name, threads=1).batch_size
        some, score = windows[: max(_WINDOWS, batch)], any_score(case.model, onnx.answer(case))
        measured = {}
        for engine in (onnx, torch):
            scores, seconds = timed(
                lambda engine=engine: engine.scores(case, score, some, batch_size=batch, cancelled=lambda: False)  # type: ignore[misc]
            )
            measured[engine.name] = scores - score.of(engine.answer(case))[0], seconds / len(some)
    except UnsupportedOperator:
        return only_onnx
    except Exception as error:
        # Logged with an id by describe_fault; its text may quote the file.
        describe_fault(error)
        return only_onnx
    (theirs, theirs_seconds), (ours, ours_seconds) = measured[onnx.name], measured[torch.name]
    base = float(score.of(onnx.answer(case))[0])
    differs = effect_difference(np.asarray(ours), np.asarray(theirs), base=base) > PARITY_BOUND
    if not differs and ours_seconds * CLEARLY_FASTER < theirs_seconds:
        told = (
            f"a whole pass takes {1000 * ours_seconds:.3g} ms by {torch.name} and {1000 * theirs_seconds:.3g} ms by {onnx.name}"
        )
        return WholePasses(torch, names, ours_seconds, told)
    return WholePasses(onnx, names, theirs_seconds)
