"""One case on the model's grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from voxplain.volume import Geometry

from voxplain_server.models.model import Model

Voxels = npt.NDArray[np.float32]
"""One modality on the model's grid, in normalised units, C-contiguous: (*spatial)."""
Volumes = tuple[Voxels, ...]
"""One array for each modality, in the order of Model.modalities. Read-only."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """The volumes of one patient as the model sees them, and what the client sent with them.

    Attributes:
        model: the model they are laid out for.
        volumes: one array for each modality, fitted and normalised.
        grids: the model's grid of each modality in patient space, in the same order.
        baseline: the client's baseline volumes, fitted and normalised with the statistics of `volumes`; None: none sent.
        donors: background cases (of the request, else of the bundle), each fitted and normalised by its own statistics.
        labels: the client's label maps, fitted by nearest neighbour: one int32 array shared by all modalities, or one for
            each modality; None: none sent.
        mask: the client's region on the output's grid; None: none sent.
        one_frame: False: the volumes came without affines and in several shapes, so `grids` cannot tell where they lie.
    """

    model: Model
    volumes: Volumes
    grids: tuple[Geometry, ...]
    baseline: Volumes | None = None
    donors: tuple[Volumes, ...] = ()
    labels: tuple[npt.NDArray[np.int32], ...] | None = None
    mask: npt.NDArray[np.bool_] | None = None
    one_frame: bool = True

    @property
    def one_grid(self) -> bool:
        """Whether all modalities lie on one grid, so that a feature can be shared by them."""
        return self.one_frame and all(grid.same_grid(self.grids[0]) for grid in self.grids[1:])
