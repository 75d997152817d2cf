"""A label map that the client drew."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from voxplain.errors import InvalidTensor

from voxplain_server.features.feature_set import Labels


def label_map_labels(drawn: npt.NDArray[np.int32]) -> Labels:
    """Number the labels of a drawn map without gaps; 0 stays background.

    Args:
        drawn: (*spatial) whole numbers from 0 on, in any order and with any gaps.

    Returns:
        (*spatial) int32, labels 0 .. n in the order of the drawn numbers.

    Raises:
        voxplain.errors.InvalidTensor: NEGATIVE_LABEL.
    """
    if drawn.size and drawn.min() < 0:
        raise InvalidTensor("NEGATIVE_LABEL", "labels must be 0 (background) or greater", field="tensors")
    names = np.unique(drawn)
    names = names[names > 0]
    labels: Labels = np.where(drawn > 0, np.searchsorted(names, drawn) + 1, 0).astype(np.int32)
    return labels
