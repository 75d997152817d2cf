"""Chooses the engine that evaluates a model's perturbed cases: operations are counted, then both engines score some windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from voxplain.v1 import explain_pb2

from voxplain_server.engines.engine import Evaluator
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.features.region import Region
from voxplain_server.graph.unsupported_operator import UnsupportedOperator
from voxplain_server.models.case import Case
from voxplain_server.models.engine_choice import MAX_SHARE, BoxCost, EngineChoice
from voxplain_server.models.loading import LoadedModel
from voxplain_server.workers.execution import resolve_execution
from voxplain_server.workers.faults import describe_fault
from voxplain_server.workers.probe_timing import PARITY_BOUND, SECONDS, any_score, effect_difference, timed
from voxplain_server.workers.whole_pass_choice import choose_whole_passes

if TYPE_CHECKING:
    from voxplain_server.engines.incremental_engine import IncrementalEvaluator

FASTER = 1.3
"""The incremental engine wins from this ratio on: below it what a call gains is lost in measuring."""
WINDOWS, FEWEST_WINDOWS = 256, 8
MOST_WHOLE = 64
"""Windows that whole passes score at most."""
INCREMENTAL_SECONDS = 3.0
"""About how long windows may take where only what they change is computed: few of them at a time are slower than a block is."""
EDGE, STRIDE = 11, 5
"""Voxels of the usual occlusion window and its step."""
BOX_EDGES = (3, 5, 8, 16, 24, 36, 52, 76)
"""Voxels of the cubes that are counted besides."""
COUNTED_CUBES, MEASURED_CUBES, WARMING_CUBES = 16, 16, 2
_SEED = 17
"""Not that of a probe's voxels: the windows must change something."""


def choose_engine(
    loaded: LoadedModel,
    onnx: Evaluator,
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
        onnx: evaluates it by whole passes of ONNX Runtime.
        case: of the model's shapes; its voxels are of no importance.
        preferred: "onnxruntime", "torch" or "incremental" where the operator wants one whatever is measured, else "auto".
        pass_seconds: what one whole pass took.
        threads: compute threads.
        device: where it computes.
    """
    # torch takes seconds: who never checks a model does without.
    from voxplain_server.engines.incremental_engine import IncrementalEvaluator, incremental_name

    windows = probe_windows(case)
    whole = choose_whole_passes(
        loaded, onnx, case, windows, preferred=preferred, pass_seconds=pass_seconds, threads=threads, device=device
    )
    dense, pass_seconds = whole.engine, whole.seconds
    only_dense = EngineChoice(dense.name, whole.names, whole.reason, pass_seconds)
    try:
        incremental = IncrementalEvaluator(loaded.graph, loaded.model, dense, device=device, threads=threads)
    except UnsupportedOperator as refused:
        return _because(only_dense, f"what a perturbation changes cannot be told for {', '.join(refused.ops)}")
    try:
        available = (*whole.names, *(incremental_name(each) for each in whole.names))
        share = float(incremental.count_flops(case, windows).mean() / max(incremental.full_flops(case), 1.0))
        if share * FASTER >= 1.0 and preferred != "incremental":
            told = f"a window's changes reach {share:.0%} of a whole pass, by counted operations"
            return EngineChoice(dense.name, available, _joined(whole.reason, told), pass_seconds, share=share)
        measured = _measure(dense, incremental, case, windows, pass_seconds=pass_seconds, share=share)
    except Exception as error:
        # Logged with an id by describe_fault; its text may quote the file.
        describe_fault(error)
        return _because(only_dense, "what a perturbation changes could not be computed on a random case")
    dense_seconds, seconds, difference = measured
    engine, told = judge(dense_seconds, seconds, difference, preferred=preferred)
    names = dense.name, incremental.name
    chosen, reason = names[engine == "incremental"], _joined(whole.reason, told)
    boxes = _cost_of_boxes(incremental, case, window=BoxCost(EDGE, share, seconds))
    return EngineChoice(chosen, available, reason, dense_seconds, seconds, share, difference, boxes)


def probe_windows(case: Case, *, edge: int = EDGE, count: int = WINDOWS) -> list[Perturbation]:
    """A uniform sample of the windows of an occlusion, filled with noise; the same for equal shapes.

    Args:
        case: the case.
        edge: of a window, in voxels.
        count: how many.
    """
    draws = np.random.default_rng(_SEED)
    fill = tuple(draws.standard_normal(volume.shape).astype(np.float32) for volume in case.volumes)
    windows = []
    for number in range(count):
        modality = number % len(case.volumes)
        box = []
        for voxels in case.volumes[modality].shape:
            own = min(edge, voxels)
            places = -(-(voxels - own) // min(STRIDE, own)) + 1
            start = min(int(draws.integers(places)) * STRIDE, voxels - own)
            box.append(slice(start, start + own))
        windows.append(Perturbation((Region(modality, tuple(box)),), fill))
    return windows


def _measure(
    dense: Evaluator, incremental: Evaluator, case: Case, windows: list[Perturbation], *, pass_seconds: float, share: float
) -> tuple[float, float, float]:
    """Seconds of one window by each engine, and their difference on the windows that both have scored."""
    batch = resolve_execution(case.model, explain_pb2.ExplainSpec(), engine=dense.name, threads=1).batch_size
    score = any_score(case.model, incremental.answer(case))

    def scored(engine: Evaluator, count: int) -> Callable[[], npt.NDArray[np.float64]]:
        return lambda: engine.scores(case, score, windows[:count], batch_size=batch, cancelled=lambda: False)

    whole = min(_affordable(pass_seconds), MOST_WHOLE)
    theirs, dense_seconds = timed(scored(dense, whole))
    few = max(whole, _affordable(pass_seconds * share, budget=INCREMENTAL_SECONDS))
    scored(incremental, FEWEST_WINDOWS)()
    ours, seconds = timed(scored(incremental, few))
    base = float(score.of(incremental.answer(case))[0])
    difference = effect_difference(ours[:whole] - base, theirs - score.of(dense.answer(case))[0], base=base)
    return dense_seconds / whole, seconds / few, difference


def _cost_of_boxes(incremental: IncrementalEvaluator, case: Case, *, window: BoxCost) -> tuple[BoxCost, ...]:
    """Count cubes of several sizes, and measure the largest that is not left to whole passes: about a supervoxel."""
    full = max(incremental.full_flops(case), 1.0)
    longest = max(max(volume.shape) for volume in case.volumes)
    found = [window]
    for edge in (edge for edge in BOX_EDGES if edge < longest and edge != EDGE):
        cubes = probe_windows(case, edge=edge, count=COUNTED_CUBES)
        found.append(BoxCost(edge, float(incremental.count_flops(case, cubes).mean() / full)))
    found.sort(key=lambda box: box.edge)
    largest = next((box for box in reversed(found) if box.share <= MAX_SHARE and box.edge > EDGE), None)
    if largest is not None:
        cubes = probe_windows(case, edge=largest.edge, count=MEASURED_CUBES)
        score = any_score(case.model, incremental.answer(case))
        incremental.scores(case, score, cubes[:WARMING_CUBES], batch_size=1, cancelled=lambda: False)
        _, spent = timed(lambda: incremental.scores(case, score, cubes, batch_size=1, cancelled=lambda: False))
        found[found.index(largest)] = replace(largest, seconds=spent / len(cubes))
    return tuple(found)


def _affordable(seconds: float, *, budget: float = SECONDS) -> int:
    return int(np.clip(budget / max(seconds, 1e-9), FEWEST_WINDOWS, WINDOWS))


def judge(dense_seconds: float, seconds: float, difference: float, *, preferred: str) -> tuple[str, str]:
    """Which engine wins, "whole" passes or "incremental", and why.

    Args:
        dense_seconds, seconds: of one window by whole passes and by what it changes.
        difference: of the effects, over the largest.
        preferred: the operator's choice, or "auto".
    """
    ratio = dense_seconds / max(seconds, 1e-9)
    told = f"a window takes {_ms(seconds)} where only what it changes is computed, and {_ms(dense_seconds)} by a whole pass"
    if preferred != "auto":
        return "incremental" if preferred == "incremental" else "whole", f"the operator's choice; {told}"
    if difference > PARITY_BOUND:
        far = f"its effects differ by {difference:.1e} of the largest, and {PARITY_BOUND:.0e} is allowed"
        return "whole", f"{told}, but {far}"
    if ratio <= FASTER:
        return "whole", f"{told}: less than {FASTER:g} times faster"
    return "incremental", told


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


def _joined(*told: str) -> str:
    return "; ".join(each for each in told if each)


def _because(choice: EngineChoice, reason: str) -> EngineChoice:
    return EngineChoice(choice.engine, choice.available, _joined(choice.reason, reason), choice.dense_seconds)
