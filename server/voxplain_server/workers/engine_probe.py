"""Chooses the engine that evaluates a model's perturbed cases: operations are counted, then both engines score some windows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
from voxplain.v1 import explain_pb2

from voxplain_server.engines.engine import Evaluator
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.features.region import Region
from voxplain_server.graph.unsupported_operator import UnsupportedOperator
from voxplain_server.models.case import Case
from voxplain_server.models.engine_choice import EngineChoice
from voxplain_server.models.loading import LoadedModel
from voxplain_server.models.model import Model, OutputKind
from voxplain_server.models.score import Score
from voxplain_server.workers.execution import resolve_execution
from voxplain_server.workers.faults import describe_fault

FASTER = 1.3
"""The incremental engine wins from this ratio on: below it what a call gains is lost in measuring."""
PARITY_BOUND = 5e-4
"""Largest difference of two engines' effects, over the largest effect."""
SCORE_SPACINGS = 32
"""Effects below so many float32 spacings of the score are rounding."""
WINDOWS, FEWEST_WINDOWS = 64, 8
EDGE, STRIDE = 11, 5
"""Voxels of the usual occlusion window and its step."""
_SEED = 17
"""Not that of a probe's voxels: the windows must change something."""
SECONDS = 0.5
"""About how long each engine may compute for the measurement."""


def choose_engine(
    loaded: LoadedModel,
    dense: Evaluator,
    case: Case,
    *,
    preferred: str,
    pass_seconds: float,
    threads: int,
    device: Literal["cpu", "cuda"],
) -> EngineChoice:
    """Choose once for a model and a host.

    Args:
        loaded: the model.
        dense: evaluates it by whole passes.
        case: of the model's shapes; its voxels are of no importance.
        preferred: "onnxruntime" or "incremental" where the operator wants one whatever is measured, else "auto".
        pass_seconds: what one whole pass took.
        threads: compute threads.
        device: where it computes.
    """
    # torch takes seconds: who never checks a model does without.
    from voxplain_server.engines.incremental_engine import IncrementalEvaluator

    only_dense = EngineChoice(dense.name, (dense.name,), "", pass_seconds)
    try:
        incremental = IncrementalEvaluator(loaded.graph, loaded.model, dense, device=device, threads=threads)
    except UnsupportedOperator as refused:
        return _because(only_dense, f"what a perturbation changes cannot be told for {', '.join(refused.ops)}")
    try:
        windows = probe_windows(case)
        share = float(incremental.count_flops(case, windows).mean() / max(incremental.full_flops(case), 1.0))
        if share * FASTER >= 1.0 and preferred != "incremental":
            told = f"a window's changes reach {share:.0%} of a whole pass, by counted operations"
            return EngineChoice(dense.name, (dense.name, incremental.name), told, pass_seconds, share=share)
        measured = _measure(dense, incremental, case, windows, pass_seconds=pass_seconds, share=share)
    except Exception as error:
        # Logged with an id by describe_fault; its text may quote the file.
        describe_fault(error)
        return _because(only_dense, "what a perturbation changes could not be computed on a random case")
    dense_seconds, seconds, difference = measured
    engine, told = judge(dense_seconds, seconds, difference, preferred=preferred)
    names = dense.name, incremental.name
    return EngineChoice(names[engine == "incremental"], names, told, dense_seconds, seconds, share, difference)


def probe_windows(case: Case) -> list[Perturbation]:
    """A uniform sample of the windows of the usual occlusion, filled with noise; the same for equal shapes."""
    draws = np.random.default_rng(_SEED)
    fill = tuple(draws.standard_normal(volume.shape).astype(np.float32) for volume in case.volumes)
    windows = []
    for number in range(WINDOWS):
        modality = number % len(case.volumes)
        box = []
        for voxels in case.volumes[modality].shape:
            edge = min(EDGE, voxels)
            places = -(-(voxels - edge) // min(STRIDE, edge)) + 1
            start = min(int(draws.integers(places)) * STRIDE, voxels - edge)
            box.append(slice(start, start + edge))
        windows.append(Perturbation((Region(modality, tuple(box)),), fill))
    return windows


def _measure(
    dense: Evaluator, incremental: Evaluator, case: Case, windows: list[Perturbation], *, pass_seconds: float, share: float
) -> tuple[float, float, float]:
    """Seconds of one window by each engine, and their difference on the windows that both have scored."""
    batch = resolve_execution(case.model, explain_pb2.ExplainSpec(), engine=dense.name, threads=1).batch_size
    score = _any_score(case.model, incremental.answer(case))

    def scored(engine: Evaluator, count: int) -> Callable[[], npt.NDArray[np.float64]]:
        return lambda: engine.scores(case, score, windows[:count], batch_size=batch, cancelled=lambda: False)

    whole = _affordable(pass_seconds)
    theirs, dense_seconds = _timed(scored(dense, whole), budget=SECONDS)
    few = max(whole, _affordable(pass_seconds * share))
    ours, seconds = _timed(scored(incremental, few), budget=SECONDS)
    effects = theirs - score.of(dense.answer(case))[0]
    base = float(score.of(incremental.answer(case))[0])
    rounding = SCORE_SPACINGS * float(np.spacing(np.float32(abs(base))))
    gap = max(float(np.abs(ours[:whole] - base - effects).max()) - rounding, 0.0)
    largest = float(np.abs(effects).max())
    difference = gap / largest if largest > 0 else (0.0 if gap == 0 else float("inf"))
    return dense_seconds / whole, seconds / few, difference if np.isfinite(difference) else float("inf")


def _affordable(seconds: float) -> int:
    return int(np.clip(SECONDS / max(seconds, 1e-9), FEWEST_WINDOWS, WINDOWS))


def _timed(run: Callable[[], npt.NDArray[np.float64]], *, budget: float) -> tuple[npt.NDArray[np.float64], float]:
    """What it gives and the seconds of its fastest run: the first one makes ready, and others use the processors too."""
    spent: list[float] = []
    while True:
        began_at = time.monotonic()
        given = run()
        spent.append(time.monotonic() - began_at)
        if len(spent) == 3 or sum(spent) > budget:
            return given, min(spent)


def _any_score(model: Model, answer: npt.NDArray[np.float32]) -> Score:
    output = model.output
    region = np.ones(answer.shape[2:], np.bool_) if output.kind is OutputKind.SEGMENTATION else None
    return Score(output, ((0 if output.kind is OutputKind.SCALAR else len(output.classes) - 1, 1.0),), region=region)


def judge(dense_seconds: float, seconds: float, difference: float, *, preferred: str) -> tuple[str, str]:
    """Which engine wins, "onnxruntime" or "incremental", and why.

    Args:
        dense_seconds, seconds: of one window by whole passes and by what it changes.
        difference: of the effects, over the largest.
        preferred: the operator's choice, or "auto".
    """
    ratio = dense_seconds / max(seconds, 1e-9)
    told = f"a window takes {_ms(seconds)} where only what it changes is computed, and {_ms(dense_seconds)} by a whole pass"
    if preferred != "auto":
        return preferred, f"the operator's choice; {told}"
    if difference > PARITY_BOUND:
        far = f"its effects differ by {difference:.1e} of the largest, and {PARITY_BOUND:.0e} is allowed"
        return "onnxruntime", f"{told}, but {far}"
    if ratio <= FASTER:
        return "onnxruntime", f"{told}: less than {FASTER:g} times faster"
    return "incremental", told


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


def _because(choice: EngineChoice, reason: str) -> EngineChoice:
    return EngineChoice(choice.engine, choice.available, reason, choice.dense_seconds)
