"""In how many passes perturbed cases went through a model."""

from __future__ import annotations

from voxplain_server.engines.engine import Evaluator


def passes_of(evaluator: Evaluator, evaluated: int, batch_size: int) -> dict[int, int]:
    """Passes of the last `scores` by the perturbed cases that they held.

    Args:
        evaluator: that evaluated them; one that groups them itself tells how.
        evaluated: perturbed cases.
        batch_size: rows of a pass; a dense engine fills them one after the other.
    """
    if evaluated == 0:
        return {}
    taken = getattr(evaluator, "batches", None)
    if taken is not None:
        return dict(taken)
    whole, rest = divmod(evaluated, batch_size)
    return {batch: passes for batch, passes in ((batch_size, whole), (rest, 1)) if batch and passes}
