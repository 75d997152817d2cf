"""What lies under a map: the same place of an image, whatever grid the image has."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from voxplain.volume import Volume

from voxplain_client.pictures.slice_view import SliceView


def sample_slice(volume: Volume, view: SliceView, index: int) -> npt.NDArray[Any]:
    """The voxels of a volume that lie nearest to the pixels of a slice, as a picture; zero outside the volume.

    Args:
        volume: an image or a mask.
        view: the plane of the map's grid.
        index: the slice of the map's grid.
    """
    if volume.geometry.same_grid(view.geometry):
        return view.cut(volume.voxels, index)
    pixels = view.voxel_indices(index)
    if volume.geometry.affine is None or view.geometry.affine is None or len(volume.geometry.shape) != 3:
        return np.zeros(pixels.shape[:2], dtype=np.float32)
    to_voxels = np.linalg.inv(volume.geometry.affine) @ view.geometry.affine
    places = np.rint(pixels @ to_voxels[:3, :3].T + to_voxels[:3, 3]).astype(np.int64)
    inside = np.all((places >= 0) & (places < np.array(volume.geometry.shape)), axis=-1)
    clipped = np.clip(places, 0, np.array(volume.geometry.shape) - 1)
    found = volume.voxels[clipped[..., 0], clipped[..., 1], clipped[..., 2]]
    return np.where(inside, found, np.zeros((), dtype=found.dtype))
