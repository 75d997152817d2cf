"""Perturbed cases through a model in batches of one shape: what every dense engine does around its forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from voxplain import errors

from voxplain_server.engines.batch_buffer import Rows
from voxplain_server.engines.engine import Cancelled
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.features.region import Region
from voxplain_server.models.case import Case, Voxels

Scorer = Callable[[], npt.NDArray[np.float64]]
"""Runs the model and scores what it answers: (batch_size,) or, for the base score, (1,)."""


def batched_scores(
    case: Case,
    perturbations: Sequence[Perturbation],
    *,
    rows: Rows,
    batch_size: int,
    score_rows: Scorer,
    score_base: Scorer,
    cancelled: Cancelled,
) -> npt.NDArray[np.float64]:
    """Score perturbed cases.

    Every pass has `batch_size` rows: rows that the last batch does not need hold the unperturbed case. A perturbation whose
    values are those of the case already takes the base score and no pass.

    Args:
        case: the unperturbed case, as it lies in `rows`.
        perturbations: read one after the other.
        rows: the batch that `score_rows` reads.
        batch_size: rows in it.
        score_rows: scores all rows.
        score_base: scores the unperturbed case as Evaluator.answer does; called at most once.
        cancelled: asked before each pass.

    Returns:
        (len(perturbations),) float64, in the order of the perturbations.

    Raises:
        voxplain.errors.Cancelled: `cancelled()` became true.
    """
    scores: npt.NDArray[np.float64] = np.full(len(perturbations), np.nan)
    unchanged: list[int] = []
    ask(cancelled)
    for indices in written_batches(case, perturbations, rows=rows, batch_size=batch_size, unchanged=unchanged):
        ask(cancelled)
        scores[indices] = score_rows()[: len(indices)]
    if unchanged:
        ask(cancelled)
        scores[unchanged] = score_base()[0]
    return scores


def written_batches(
    case: Case, perturbations: Sequence[Perturbation], *, rows: Rows, batch_size: int, unchanged: list[int]
) -> Iterator[list[int]]:
    """Write perturbed cases into the rows, batch after batch; until the next one is asked for they lie there.

    Args:
        case, perturbations, rows, batch_size: as for `batched_scores`.
        unchanged: gets the places of perturbations that change nothing and need no row.

    Yields:
        The places of the perturbations that the first rows hold; further rows hold the unperturbed case.
    """
    waiting: list[tuple[int, Perturbation]] = []

    def restored() -> None:
        for row, (_, perturbation) in enumerate(waiting):
            rows.restore(row, perturbation)
        waiting.clear()

    for index, perturbation in enumerate(perturbations):
        if not changes(perturbation, case):
            unchanged.append(index)
            continue
        rows.write(len(waiting), perturbation)
        waiting.append((index, perturbation))
        if len(waiting) == batch_size:
            yield [place for place, _ in waiting]
            restored()
    if waiting:
        yield [place for place, _ in waiting]
        restored()


def changes(perturbation: Perturbation, case: Case) -> bool:
    """Whether any voxel of the case takes another value."""
    return any(
        _differs(region, perturbation.source[region.modality], case.volumes[region.modality]) for region in perturbation.regions
    )


def ask(cancelled: Cancelled) -> None:
    """Raise voxplain.errors.Cancelled where the client does not want the answer any more."""
    if cancelled():
        raise errors.Cancelled("CANCELLED", "the explanation was cancelled")


def _differs(region: Region, values: Voxels, volume: Voxels) -> bool:
    if region.indices is None:
        return not np.array_equal(values[region.box], volume[region.box])
    return not np.array_equal(values.reshape(-1)[region.indices], volume.reshape(-1)[region.indices])
