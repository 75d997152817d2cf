"""SLIC supervoxels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from voxplain_server.features.feature_set import Labels


def slic_labels(volume: npt.NDArray[np.float32], *, segments: int, compactness: float, sigma_voxels: float) -> Labels:
    """Cut the non-zero voxels of a volume into supervoxels.

    SLIC (Achanta et al., "SLIC superpixels compared to state-of-the-art superpixel methods", TPAMI 2012), in its masked
    form (Irving, "maskSLIC", 2016), as scikit-image computes it.

    Args:
        volume: (*spatial), 2 or 3 axes, normalised. Voxels that are exactly zero are background.
        segments: supervoxels aimed at; there are fewer where the mask is small.
        compactness: weight of compact shape against intensity, which scikit-image scales to 0 .. 1.
        sigma_voxels: Gaussian pre-smoothing in voxels.

    Returns:
        (*spatial) int32: 0 where the volume is zero, 1 .. n elsewhere, without gaps.
    """
    mask = volume != 0
    voxels = int(mask.sum())
    if voxels == 0:
        return np.zeros(volume.shape, dtype=np.int32)
    if voxels <= segments:
        return _number_each_voxel(mask)
    labels = _slic(volume, mask, segments=segments, compactness=compactness, sigma_voxels=sigma_voxels)
    return _without_gaps(_adopt_orphans(labels, mask))


def _slic(
    volume: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    *,
    segments: int,
    compactness: float,
    sigma_voxels: float,
) -> Labels:
    from skimage.segmentation import slic

    labels: Labels = slic(
        volume.astype(np.float64),
        n_segments=segments,
        compactness=compactness,
        sigma=sigma_voxels,
        mask=None if mask.all() else mask,
        start_label=1,
        channel_axis=None,
    ).astype(np.int32)
    return labels


def _number_each_voxel(mask: npt.NDArray[np.bool_]) -> Labels:
    labels = np.zeros(mask.shape, dtype=np.int32)
    labels[mask] = np.arange(1, int(mask.sum()) + 1, dtype=np.int32)
    return labels


def _adopt_orphans(labels: Labels, mask: npt.NDArray[np.bool_]) -> Labels:
    """Give masked voxels that SLIC left unlabelled (islands smaller than half a segment) to the nearest supervoxel.

    Label 0 must be the voxels that are zero and no others: only so is the background exactly zero under a zero baseline.
    """
    orphans = mask & (labels == 0)
    if not orphans.any():
        return labels
    if orphans.sum() == mask.sum():
        return mask.astype(np.int32)
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    adopted: Labels = np.where(orphans, labels[tuple(nearest)], labels)
    return adopted


def _without_gaps(labels: Labels) -> Labels:
    names = np.unique(labels)
    names = names[names > 0]
    numbered: Labels = np.where(labels > 0, np.searchsorted(names, labels) + 1, 0).astype(np.int32)
    return numbered
