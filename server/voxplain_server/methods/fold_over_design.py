"""Which pairs of coalitions fold-over LIME evaluates."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count as count_up

import numpy as np
import numpy.typing as npt

from voxplain_server.methods.hadamard import hadamard

COUNTED_PLAYERS = 40
"""Up to here all pairs of coalitions are counted; more are taken for infinitely many."""

Stream = Callable[[str, int], np.random.Generator]


def count_all_pairs(players: int) -> float:
    """Pairs of a coalition and its complement."""
    return 2.0 ** max(players - 1, 0) if players <= COUNTED_PLAYERS else np.inf


def design_by_fold_over(pairs: int, players: int, stream: Stream) -> npt.NDArray[np.bool_]:
    """Draw distinct pairs, each coalition of which is uniform among all coalitions.

    Replicates of a Hadamard matrix stand one below the other: each with columns in random order, one for each player, with
    random signs, and with rows in random order. Within a replicate every two players are together as often as apart, so the
    regression tells them apart without loss. With its complement, a row cancels what interactions of two players add to the
    answers (Box and Wilson, "On the experimental attainment of optimum conditions", 1951). Random signs make each row uniform,
    as LIME's coins are. Rows that were there are left out.

    Args:
        pairs: how many are wanted; fewer where there are not so many.
        players: n.
        stream: opens the random stream of a name and a number.

    Returns:
        (pairs, players) one coalition of each pair.
    """
    there_are = count_all_pairs(players)
    if 2 * pairs > there_are:
        return _listed(min(pairs, int(there_are)), players, stream("all", 0))
    # With fewer pairs than players nothing is told apart, and the matrix would be larger than what is drawn from it.
    matrix = hadamard(players) if pairs >= players else None
    found: dict[bytes, npt.NDArray[np.bool_]] = {}
    for replicate in count_up():
        draws = stream("replicate", replicate)
        if matrix is None:
            rows = draws.random((pairs, players)) < 0.5
        else:
            columns, order = draws.permutation(len(matrix))[:players], draws.permutation(len(matrix))
            rows = (matrix[order][:, columns] > 0) ^ (draws.random(players) < 0.5)
        # Of a coalition and its complement the one with the first player names the pair.
        for packed, row in zip(np.packbits(rows ^ ~rows[:, :1], axis=1), rows, strict=True):
            found.setdefault(packed.tobytes(), row)
            if len(found) == pairs:
                return np.stack(list(found.values()))
    raise AssertionError  # pragma: no cover


def _listed(pairs: int, players: int, draws: np.random.Generator) -> npt.NDArray[np.bool_]:
    """So many of all pairs, in random order."""
    chosen = draws.permutation(1 << max(players - 1, 0))[:pairs]
    return (chosen[:, None] >> np.arange(players)) & 1 > 0
