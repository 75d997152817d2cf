"""Measures engines on a random case and compares what they find."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from voxplain_server.models.model import Model, OutputKind
from voxplain_server.models.score import Score

PARITY_BOUND = 5e-4
"""Largest difference of two engines' effects, over the largest effect."""
SCORE_SPACINGS = 32
"""Effects below so many float32 spacings of the score are rounding."""
SECONDS = 0.5
"""About how long each engine may compute for the measurement."""

Numbers = npt.NDArray[np.float64]


def timed(run: Callable[[], Numbers], *, budget: float = SECONDS) -> tuple[Numbers, float]:
    """What it gives and the seconds of its fastest run: the first one makes ready, and others use the processors too."""
    spent: list[float] = []
    while True:
        began_at = time.monotonic()
        given = run()
        spent.append(time.monotonic() - began_at)
        if len(spent) == 3 or sum(spent) > budget:
            return given, min(spent)


def effect_difference(ours: Numbers, theirs: Numbers, *, base: float) -> float:
    """Largest difference of effects over the largest effect, rounding of the score left out; infinite where none is finite.

    Args:
        ours, theirs: (windows,) scores less the score of the case.
        base: that score.
    """
    rounding = SCORE_SPACINGS * float(np.spacing(np.float32(abs(base))))
    gap = max(float(np.abs(ours - theirs).max()) - rounding, 0.0)
    largest = float(np.abs(theirs).max())
    difference = gap / largest if largest > 0 else (0.0 if gap == 0 else float("inf"))
    return difference if np.isfinite(difference) else float("inf")


def any_score(model: Model, answer: npt.NDArray[np.float32]) -> Score:
    """Some score of the model's answer."""
    output = model.output
    region = np.ones(answer.shape[2:], np.bool_) if output.kind is OutputKind.SEGMENTATION else None
    return Score(output, ((0 if output.kind is OutputKind.SCALAR else len(output.classes) - 1, 1.0),), region=region)
