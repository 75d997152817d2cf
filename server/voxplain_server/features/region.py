"""The voxels of one modality that are switched together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Box = tuple[slice, ...]
"""One slice for each spatial axis, with start and stop."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Some voxels of one modality.

    Attributes:
        modality: index in Model.modalities.
        box: the smallest box that holds them; engines recompute no more than this reaches.
        indices: flat C-order indices of the voxels, ascending; None: the whole box.
    """

    modality: int
    box: Box
    indices: npt.NDArray[np.int64] | None = None

    @property
    def voxels(self) -> int:
        """How many voxels it has."""
        if self.indices is not None:
            return int(self.indices.size)
        return int(np.prod([part.stop - part.start for part in self.box]))
