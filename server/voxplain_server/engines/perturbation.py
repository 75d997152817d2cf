"""One changed case, told as what differs from the unperturbed one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxplain_server.features.region import Region
from voxplain_server.models.case import Volumes


@dataclass(frozen=True, slots=True, eq=False)
class Perturbation:
    """Voxels of some regions take the values of another case; everything else stays.

    Engines that recompute only what changed read `regions`; a dense engine calls `write` and `restore`.

    Attributes:
        regions: what changes; empty: nothing does.
        source: where the values come from: a baseline, a fill or a donor, one array for each modality.
    """

    regions: tuple[Region, ...]
    source: Volumes

    def write(self, into: Sequence[npt.NDArray[np.float32]]) -> None:
        """Change `into`, one array (*spatial) for each modality holding the unperturbed case, in place.

        The arrays may be views into an engine's batch whose axes are permuted (slices first).
        """
        _copy(self.regions, self.source, into)

    def restore(self, into: Sequence[npt.NDArray[np.float32]], case: Volumes) -> None:
        """Undo `write`, copying only what it changed."""
        _copy(self.regions, case, into)


def _copy(regions: tuple[Region, ...], source: Volumes, into: Sequence[npt.NDArray[np.float32]]) -> None:
    for region in regions:
        target, values = into[region.modality], source[region.modality]
        if region.indices is None:
            target[region.box] = values[region.box]
        elif target.flags.c_contiguous:
            target.reshape(-1)[region.indices] = values.reshape(-1)[region.indices]
        else:
            # Flattening a permuted view would copy it, and the change would be lost.
            target[np.unravel_index(region.indices, target.shape)] = values.reshape(-1)[region.indices]
