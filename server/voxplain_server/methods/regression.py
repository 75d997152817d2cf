"""Weighted linear regression over coalitions, and how far its coefficients can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What a regression found.

    Attributes:
        coefficients: (players,); of least norm where the samples do not determine them.
        intercept: the constant term.
        standard_errors: (players,), or None where there are too few samples.
        rank: independent directions among the samples; below the number of players the fit is underdetermined.
    """

    coefficients: Numbers
    intercept: float
    standard_errors: Numbers | None
    rank: int


def fit_linear(
    coalitions: npt.NDArray[np.bool_],
    scores: Numbers,
    *,
    weights: Numbers,
    draws: npt.NDArray[np.int64],
    certain: npt.NDArray[np.bool_],
) -> Fit:
    """Fit scores = intercept + coalitions @ coefficients by weighted least squares, without regularisation.

    Centred on the weighted means and scaled by the roots of the weights, then solved by singular values, as scikit-learn's
    LinearRegression does. Standard errors are heteroskedasticity-consistent, HC3 (MacKinnon and White, "Some
    heteroskedasticity-consistent covariance matrix estimators with improved finite sample properties", 1985):
    B (sum_i w_i^2 e_i^2 / (1 - h_i)^2 x_i x_i') B with B = (X'WX)^-1 and h_i the leverage, summed over draws.

    Args:
        coalitions: (samples, players) distinct coalitions.
        scores: (samples,).
        weights: (samples,) weight of one draw.
        draws: (samples,) how often each coalition was drawn.
        certain: (samples,) coalitions that belong to the design and were not drawn: no source of error.
    """
    design = coalitions.astype(np.float64)
    players = design.shape[1]
    total = weights * draws
    design_mean, score_mean = (np.average(each, axis=0, weights=total) for each in (design, scores))
    centred, deviations = design - design_mean, scores - score_mean
    roots = np.sqrt(total)
    solution, _, rank, _ = np.linalg.lstsq(centred * roots[:, None], deviations * roots, rcond=None)
    coefficients = solution.astype(np.float64)
    intercept = float(score_mean - design_mean @ coefficients)
    errors = None
    if rank == players and scores.size >= players + 2:
        inverse = np.linalg.pinv((centred * total[:, None]).T @ centred, hermitian=True)
        spread = centred @ inverse
        leverage = weights * (1.0 / total.sum() + np.einsum("ij,ij->i", spread, centred))
        residuals = deviations - centred @ coefficients
        # A draw of leverage one is met exactly, whatever its score: the floor keeps 0 / 0 from becoming NaN.
        pull = np.where(certain, 0.0, weights * residuals / np.maximum(1.0 - leverage, 1e-6))
        errors = np.sqrt(np.einsum("i,ij->j", draws * pull**2, spread**2))
    return Fit(coefficients=coefficients, intercept=intercept, standard_errors=errors, rank=int(rank))
