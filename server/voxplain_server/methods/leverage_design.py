"""Which pairs of coalitions Leverage SHAP evaluates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from math import comb, lgamma, log

import numpy as np
import numpy.typing as npt

EXACT_LOG = log(2.0**50)
"""Up to here a number of pairs is counted; sets that hold more are taken for infinite."""
LISTED = 4
"""A set of at most so many times what is drawn from it is listed and shuffled; a larger one is drawn from, repetitions anew."""

Stream = Callable[[int], np.random.Generator]


@dataclass(frozen=True, slots=True, eq=False)
class LeverageDesign:
    """Pairs of a coalition of s players and its complement of n - s, for s from 1 to n / 2.

    Attributes:
        first: (pairs, players) the smaller coalition of each pair; of two halves either.
        strata: (pairs,) s - 1.
        stratum_pairs: (n // 2,) how many pairs there are of each s; infinite where that is beyond counting.
    """

    first: npt.NDArray[np.bool_]
    strata: npt.NDArray[np.int64]
    stratum_pairs: npt.NDArray[np.float64]


def design_by_leverage(pairs: int, players: int, stream: Stream) -> LeverageDesign:
    """Draw pairs of coalitions by leverage score, without replacement within a size.

    In the regression whose solution are the Shapley values, the leverage score of a coalition of s of n players is
    1 / C(n, s) (Musco and Witter 2024, lemma 3.2): every size is worth the same, so each gives the same number, and all that it
    has where that is less. The paper draws these numbers, too; here they are fixed, which takes their noise away.

    The pairs stand in an order in which the sizes of every beginning are in the same proportion, as far as that goes.

    Args:
        pairs: how many are wanted; fewer where there are not so many.
        players: n.
        stream: opens the random stream of a size.
    """
    totals = count_pairs(players)
    counts = share_out(pairs, players, totals)
    rows, strata, places = [np.zeros((0, players), np.bool_)], [np.zeros(0, np.int64)], [np.zeros(0)]
    for stratum, count in enumerate(counts):
        size = stratum + 1
        rows.append(draw_of_size(int(count), size, players, totals[stratum], stream(size)))
        strata.append(np.full(count, stratum))
        places.append((np.arange(count) + 0.5) / max(count, 1))
    order = np.argsort(np.concatenate(places), kind="stable")
    return LeverageDesign(np.concatenate(rows)[order], np.concatenate(strata)[order], totals)


def count_pairs(players: int) -> npt.NDArray[np.float64]:
    """(players // 2,) Pairs of coalitions of s and of n - s players, for s from 1 on; infinite beyond counting."""
    totals = np.full(players // 2, np.inf)
    for stratum in range(players // 2):
        size = stratum + 1
        if lgamma(players + 1) - lgamma(size + 1) - lgamma(players - size + 1) > EXACT_LOG:
            # Larger sizes have more.
            break
        totals[stratum] = comb(players, size) // (2 if 2 * size == players else 1)
    return totals


def share_out(pairs: int, players: int, totals: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """How many pairs each size gives: the same for all, half for the one that is its own complement, at most all it has."""
    counts = np.zeros(totals.size, dtype=np.int64)
    if pairs >= totals.sum():
        return totals.astype(np.int64)
    worth = np.where(2 * np.arange(1, totals.size + 1) == players, 0.5, 1.0)
    free = np.ones(totals.size, dtype=np.bool_)
    wanted = np.zeros(totals.size)
    while True:
        level = (pairs - totals[~free].sum()) / worth[free].sum()
        wanted = np.where(free, level * worth, totals)
        full = free & (wanted >= totals)
        if not full.any():
            break
        free &= ~full
    counts = np.floor(wanted).astype(np.int64)
    # What rounding left over goes to the largest remainders; small sizes first where they are equal.
    remainders = np.where(counts < totals, wanted - counts, -1.0)
    counts[np.argsort(-remainders, kind="stable")[: pairs - int(counts.sum())]] += 1
    return counts


def draw_of_size(count: int, size: int, players: int, total: float, draws: np.random.Generator) -> npt.NDArray[np.bool_]:
    """(count, players) Distinct coalitions of a size in random order; of a half and its complement only one."""
    if count == 0:
        return np.zeros((0, players), dtype=np.bool_)
    halves = 2 * size == players
    if total <= LISTED * count:
        # Of two halves, the one that holds player 0.
        some = combinations(range(1, players), size - 1) if halves else combinations(range(players), size)
        listed = np.array([(0, *each) if halves else each for each in some], dtype=np.int64)
        return _rows(listed[draws.permutation(len(listed))[:count]], players)
    found: dict[bytes, npt.NDArray[np.bool_]] = {}
    while len(found) < count:
        drawn = draws.random((count, players)).argpartition(size - 1, axis=1)[:, :size]
        rows = _rows(drawn, players)
        if halves:
            rows ^= ~rows[:, :1]
        for packed, row in zip(np.packbits(rows, axis=1), rows, strict=True):
            if len(found) < count:
                found.setdefault(packed.tobytes(), row)
    return np.stack(list(found.values()))


def _rows(members: npt.NDArray[np.int64], players: int) -> npt.NDArray[np.bool_]:
    rows = np.zeros((members.shape[0], players), dtype=np.bool_)
    np.put_along_axis(rows, members, True, axis=1)
    return rows
