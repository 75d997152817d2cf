"""Weighted regression over pairs of a coalition and its complement, and how far its coefficients can be trusted.

Pairs are drawn as wholes, so they, and not their coalitions, are the independent observations. Standard errors are the
heteroskedasticity-consistent ones that leave each observation out in turn (MacKinnon and White 1985; for groups Bell and
McCaffrey 2002, where they are called bias-reduced). A set of pairs that was drawn without replacement tells the less about the
rest, the more of it is there: its part of the variance shrinks with the share that is left (Cochran 1977, equation 2.15), and
vanishes when all are there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from voxplain_server.methods.regression import Fit

Numbers = npt.NDArray[np.float64]

LEAST_REST = 1e-6
"""A pair of leverage one is met exactly, whatever its scores: the floor keeps 0 / 0 from becoming NaN."""
ENOUGH = 2.0
"""Pairs for each unknown from which on plain least squares is used. Below, and worst where there are as many pairs as unknowns,
the pairs hardly tell the players apart."""
RIDGES = np.logspace(-4, 2, 25)


def fit_differences(first: npt.NDArray[np.bool_], halves: Numbers, *, total: float, weights: Numbers, drawn: Numbers) -> Fit:
    """Fit scores = baseline + coalition @ coefficients under the constraint that the coefficients sum to `total`.

    Under the constraint a coalition and its complement say the same: the coefficients of the coalition's players sum to
    half of (score - baseline) + (full score - complement's score). The constraint is met by the equal shares total / players
    plus what sums to zero, which is what least squares of least norm gives on coalitions less their mean.

    With fewer pairs than `ENOUGH` times the unknowns, and not all, the coefficients are drawn towards the equal shares: ridge
    regression (Hoerl and Kennard 1970), as strong as predicts best each pair from the others. No standard error is known then.

    Args:
        first: (pairs, players) with at least two players.
        halves: (pairs,) half of that sum.
        total: sum of all coefficients.
        weights: (pairs,).
        drawn: (pairs,) share of the pair's stratum that is there, from 0 to 1.

    Returns:
        The intercept is 0; the rank is at most players - 1.
    """
    players = first.shape[1]
    share = total / players
    present = first.astype(np.float64)
    roots = np.sqrt(weights)
    design = (present - present.mean(axis=1, keepdims=True)) * roots[:, None]
    answers = (halves - share * present.sum(axis=1)) * roots
    exhausted = bool((drawn >= 1.0).all())
    if answers.size < ENOUGH * (players - 1) and not exhausted:
        solution, rank = _ridge(design, answers), int(np.linalg.matrix_rank(design))
        return Fit(coefficients=share + solution, intercept=0.0, standard_errors=None, rank=rank)
    solution, _, rank, _ = np.linalg.lstsq(design, answers, rcond=None)
    errors = None
    if rank == players - 1 and exhausted:
        errors = np.zeros(players)
    elif rank == players - 1 and answers.size > rank + 1:
        spread = design @ np.linalg.pinv(design.T @ design, hermitian=True)
        leverage = np.einsum("ij,ij->i", spread, design)
        pull = (answers - design @ solution) / np.maximum(1.0 - leverage, LEAST_REST)
        errors = np.sqrt(np.einsum("i,ij->j", (1.0 - drawn) * pull**2, spread**2))
    return Fit(coefficients=share + solution.astype(np.float64), intercept=0.0, standard_errors=errors, rank=int(rank))


def _ridge(design: Numbers, answers: Numbers) -> Numbers:
    """Ridge regression of the strength that leaves the least squares of left-out residuals (Allen's PRESS, 1974)."""
    left, values, right = np.linalg.svd(design, full_matrices=False)
    squares, seen = values**2, left.T @ answers
    best, chosen = np.inf, squares / (squares + 1.0)
    for ridge in RIDGES * squares.sum() / design.shape[1]:
        kept = squares / (squares + ridge)
        residuals = answers - left @ (kept * seen)
        press = float(np.sum((residuals / np.maximum(1.0 - np.einsum("ij,j->i", left**2, kept), LEAST_REST)) ** 2))
        if press < best:
            best, chosen = press, kept
    held = values > values.max(initial=0.0) * 1e-12
    solution: Numbers = right[held].T @ (chosen[held] / values[held] * seen[held])
    return solution


def fit_pairs(first: npt.NDArray[np.bool_], scores: Numbers, *, weights: Numbers, drawn: Numbers) -> Fit:
    """Fit scores = intercept + coalition @ coefficients, a coalition and its complement having weights of their own.

    Args:
        first: (pairs, players).
        scores: (pairs, 2) of each coalition and its complement.
        weights: (pairs, 2).
        drawn: (pairs,) share of all pairs that is there, from 0 to 1.
    """
    pairs, players = first.shape
    design = np.stack([first, ~first], axis=1).astype(np.float64).reshape(2 * pairs, players)
    heavy, answers = weights.reshape(-1), scores.reshape(-1)
    design_mean, score_mean = (np.average(each, axis=0, weights=heavy) for each in (design, answers))
    centred, deviations = design - design_mean, answers - score_mean
    roots = np.sqrt(heavy)
    solution, _, rank, _ = np.linalg.lstsq(centred * roots[:, None], deviations * roots, rcond=None)
    coefficients = solution.astype(np.float64)
    errors = None
    if rank == players and (drawn >= 1.0).all():
        errors = np.zeros(players)
    elif rank == players and pairs > players + 1:
        spread = centred @ np.linalg.pinv((centred * heavy[:, None]).T @ centred, hermitian=True)
        two_spread, two = spread.reshape(pairs, 2, players), centred.reshape(pairs, 2, players)
        hats = np.einsum("gij,gkj->gik", two_spread, two) + 1.0 / heavy.sum()
        rest = np.eye(2) - hats * weights[:, None, :]
        residuals = (deviations - centred @ coefficients).reshape(pairs, 2)
        left_out = np.einsum("gij,gj->gi", np.linalg.pinv(rest, rcond=LEAST_REST), residuals)
        pull = np.einsum("gi,gij->gj", weights * left_out, two_spread)
        errors = np.sqrt(((1.0 - drawn)[:, None] * pull**2).sum(axis=0))
    return Fit(
        coefficients=coefficients,
        intercept=float(score_mean - design_mean @ coefficients),
        standard_errors=errors,
        rank=int(rank),
    )
