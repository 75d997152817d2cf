"""One tensor of a case: its header, and its voxels as they will travel."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from voxplain.errors import InvalidTensor
from voxplain.v1 import tensor_pb2
from voxplain.volume import Volume
from voxplain.wire import array_bytes, data_type_of

VolumeLike = Volume | npt.NDArray[Any]
"""A volume, or bare voxels whose place in the patient is not known."""


_WANTED = (
    "a volume is a numpy array, or Volume(Geometry(shape=..., affine=...), voxels) of voxplain.volume; of a NIfTI file, .volume"
)
_AFFINE_WANTED = "an affine is a 4x4 numpy array of numbers, from voxel indices to mm, RAS+: numpy.array(...) makes one"


@dataclass(frozen=True, slots=True, eq=False)
class Payload:
    """A declared tensor and its voxels.

    Attributes:
        header: what the spec declares.
        voxels: of the header's shape and type.
    """

    header: tensor_pb2.Tensor
    voxels: npt.NDArray[Any]

    def bytes(self) -> memoryview:
        """The bytes as they travel: C order, little-endian."""
        return array_bytes(self.voxels)

    def sha256(self) -> str:
        """SHA-256 of those bytes, lower-case hexadecimal, as the record holds it."""
        return hashlib.sha256(self.bytes()).hexdigest()


def make_payload(header: tensor_pb2.Tensor, volume: VolumeLike, *, field: str) -> Payload:
    """Fill a header's type, shape and affine from a volume whose voxels are brought to a type that travels.

    Volumes, baselines and background cases travel as float32 or int16, labels as int32, int16 or uint8, masks as uint8.

    Args:
        header: id, role, modality and case index.
        volume: of any real type.
        field: names the argument in errors, for example `volumes[t1]`.

    Raises:
        InvalidTensor: NOT_AN_ARRAY, DTYPE_UNSUPPORTED, RANK_INVALID, LABELS_NOT_INTEGERS, AFFINE_INVALID; of a mask NOT_FINITE.
    """
    if not isinstance(volume, Volume | np.ndarray):
        raise InvalidTensor("NOT_AN_ARRAY", _WANTED, field=field)
    voxels = volume.voxels if isinstance(volume, Volume) else volume
    affine = volume.geometry.affine if isinstance(volume, Volume) else None
    if voxels.dtype.kind not in "fiub":
        raise InvalidTensor("DTYPE_UNSUPPORTED", "voxels must be real numbers", field=field)
    if voxels.ndim not in (2, 3):
        raise InvalidTensor("RANK_INVALID", "voxels have 2 or 3 axes; take one volume of a series", field=field)
    if affine is not None and not _is_affine(affine):
        raise InvalidTensor("AFFINE_INVALID", _AFFINE_WANTED, field=field)
    converted = _CONVERSIONS.get(header.role, _as_intensities)(voxels, field)
    filled = tensor_pb2.Tensor()
    filled.CopyFrom(header)
    filled.data_type = data_type_of(converted.dtype)
    filled.shape.extend(converted.shape)
    if affine is not None:
        filled.affine.extend(np.asarray(affine, dtype=np.float64).reshape(-1).tolist())
    return Payload(header=filled, voxels=converted)


def _is_affine(affine: object) -> bool:
    return isinstance(affine, np.ndarray) and affine.shape == (4, 4) and affine.dtype.kind in "fiu"


def _as_intensities(voxels: npt.NDArray[Any], field: str) -> npt.NDArray[Any]:
    del field
    if voxels.dtype.kind == "i" and voxels.dtype.itemsize == 2:
        return voxels
    return voxels.astype(np.float32, copy=False)


def _as_labels(voxels: npt.NDArray[Any], field: str) -> npt.NDArray[Any]:
    limits = np.iinfo(np.int32)
    whole = voxels.dtype.kind in "iub" or bool(np.all(voxels == np.rint(voxels)))
    if not whole or (voxels.size and (voxels.min() < limits.min or voxels.max() > limits.max)):
        raise InvalidTensor("LABELS_NOT_INTEGERS", "labels are whole numbers that fit into 32 bits", field=field)
    if voxels.dtype in (np.dtype(np.uint8), np.dtype(np.int16)):
        return voxels
    return voxels.astype(np.int32)


def _as_mask(voxels: npt.NDArray[Any], field: str) -> npt.NDArray[Any]:
    # A NaN is not zero, but whoever wrote it did not mean "inside".
    if voxels.dtype.kind == "f" and not bool(np.all(np.isfinite(voxels))):
        raise InvalidTensor("NOT_FINITE", "a mask is finite: zero outside, non-zero inside", field=field)
    mask: npt.NDArray[Any] = (voxels != 0).astype(np.uint8)
    return mask


_CONVERSIONS = {tensor_pb2.TENSOR_ROLE_LABELS: _as_labels, tensor_pb2.TENSOR_ROLE_MASK: _as_mask}
