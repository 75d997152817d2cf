"""Which voxels belong to which feature."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from voxplain_server.features.region import Region

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSet:
    """Features 0 .. count-1 of a case.

    Label 0 is background: one feature shared by all modalities, where any voxel has it.

    Attributes:
        labels: for each modality an int32 array (*spatial) whose value is the feature's index; features of different
            modalities have different indices, but for background and for shared groupings, where the arrays are equal.
        count: number of features.
        shared: whether one grouping serves all modalities.
    """

    labels: tuple[Labels, ...]
    count: int
    shared: bool
    _regions: list[tuple[Region, ...]] = field(default_factory=list, init=False, repr=False)

    def regions(self, feature: int) -> tuple[Region, ...]:
        """The voxels of one feature, at most one region for each modality."""
        if not self._regions:
            self._regions.extend(_regions_by_feature(self.labels, self.count))
        return self._regions[feature]

    def paint(self, values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
        """Give every voxel the value of its feature.

        Args:
            values: (count,).

        Returns:
            One array for each modality, (*spatial) float64.
        """
        return tuple(values[labels] for labels in self.labels)


def _regions_by_feature(labels: tuple[Labels, ...], count: int) -> list[tuple[Region, ...]]:
    found: list[list[Region]] = [[] for _ in range(count)]
    for modality, volume in enumerate(labels):
        if modality and volume is labels[0]:
            # One array serves all modalities: so do its indices, which are as large as the volume itself.
            for regions in found:
                regions.extend([replace(regions[0], modality=modality)] if regions else [])
            continue
        order = np.argsort(volume, axis=None, kind="stable")
        counts = np.bincount(volume.ravel(), minlength=count)
        ends = np.cumsum(counts)
        for feature in np.flatnonzero(counts):
            indices = order[ends[feature] - counts[feature] : ends[feature]].astype(np.int64)
            places = np.unravel_index(indices, volume.shape)
            box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in places)
            found[int(feature)].append(Region(modality=modality, box=box, indices=indices))
    return [tuple(regions) for regions in found]
