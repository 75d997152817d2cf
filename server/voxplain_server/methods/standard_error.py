"""How far values can be trusted, in one number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def relative_standard_error(values: npt.NDArray[np.float64], standard_errors: npt.NDArray[np.float64] | None) -> float | None:
    """Root mean square of the standard errors divided by the largest absolute value.

    Args:
        values: (features,); NaN where nothing is known.
        standard_errors: (features,), or None.

    Returns:
        A number from 0 on; None where nothing is known, or where all values are zero but not their errors.
    """
    if standard_errors is None:
        return None
    known = np.isfinite(values) & np.isfinite(standard_errors)
    if not known.any():
        return None
    error = float(np.sqrt(np.mean(standard_errors[known] ** 2)))
    largest = float(np.abs(values[known]).max())
    if largest > 0.0:
        return error / largest
    return 0.0 if error == 0.0 else None
