"""Reads the volumes that a bundle holds: a small part of NIfTI-1.

Single files (.nii, .nii.gz) of uint8, int16 or float32 with 2 or 3 axes. Reference: https://nifti.nimh.nih.gov/nifti-1.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from voxplain.volume import Affine, Geometry, Volume

from voxplain_server.models.model_refused import ModelRefused

MAX_VOLUME_BYTES = 1 << 30

_HEADER_BYTES = 348
_DTYPES = {2: "u1", 4: "i2", 16: "f4"}
_MAGIC = b"n+1\x00"
_MAX_AXIS = 8192
_MAX_TRAILING_BYTES = 1 << 20


def read_nifti(path: Path, *, max_bytes: int = MAX_VOLUME_BYTES) -> Volume:
    """Read one volume; intensities are scaled as its header says.

    Args:
        path: the file.
        max_bytes: most bytes of its voxels.

    Returns:
        float32 voxels in the order of the file's axes (X, Y, Z), with the affine of the sform, else of the qform, else None.

    Raises:
        ModelRefused: BACKGROUND_UNREADABLE.
    """
    try:
        with path.open("rb") as raw:
            if path.name.endswith(".gz"):
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    volume = _read(unpacked, max_bytes)
                    _read_to_end(unpacked)
                    return volume
            return _read(raw, max_bytes)
    except (OSError, EOFError, ValueError, struct.error, zlib.error):
        message = (
            "A background case is no NIfTI-1 file of uint8, int16 or float32 with 2 or 3 axes within the size limit. "
            "Convert it."
        )
        raise ModelRefused("BACKGROUND_UNREADABLE", message) from None


def _read(file: IO[bytes] | gzip.GzipFile, max_bytes: int) -> Volume:
    header = file.read(_HEADER_BYTES)
    order = "<" if struct.unpack_from("<i", header, 0)[0] == _HEADER_BYTES else ">"
    if struct.unpack_from(order + "i", header, 0)[0] != _HEADER_BYTES or header[344:348] != _MAGIC:
        raise ValueError("not a single-file NIfTI-1")
    shape = _shape(struct.unpack_from(order + "8h", header, 40))
    code = struct.unpack_from(order + "h", header, 70)[0]
    offset, slope, intercept = struct.unpack_from(order + "3f", header, 108)
    if code not in _DTYPES or not _HEADER_BYTES <= offset <= 1 << 20:
        raise ValueError("another type, or voxels at no valid place")
    dtype = np.dtype(order + _DTYPES[code])
    size = int(np.prod(shape)) * dtype.itemsize
    if size > max_bytes:
        raise ValueError("too large")
    file.read(int(offset) - _HEADER_BYTES)
    data = file.read(size)
    voxels = np.frombuffer(data, dtype=dtype).reshape(shape, order="F").astype(np.float32)
    if np.isfinite([slope, intercept]).all() and slope != 0.0 and (slope, intercept) != (1.0, 0.0):
        voxels = voxels * np.float32(slope) + np.float32(intercept)
    if not np.isfinite(voxels).all():
        raise ValueError("not finite")
    return Volume(Geometry(shape, _affine(header, order)), voxels)


def _read_to_end(file: gzip.GzipFile) -> None:
    """The checksum stands at the end of the file and is looked at only by who reads so far."""
    if len(file.read(_MAX_TRAILING_BYTES)) == _MAX_TRAILING_BYTES:
        raise ValueError("more than a volume")


def _shape(dims: tuple[int, ...]) -> tuple[int, ...]:
    rank, sizes = dims[0], dims[1:]
    shape = sizes[: max(0, rank)]
    while len(shape) > 2 and shape[-1] == 1 and len(shape) != 3:
        shape = shape[:-1]
    if not (1 <= rank <= 7 and len(shape) in (2, 3) and all(1 <= size <= _MAX_AXIS for size in shape)):
        raise ValueError("neither 2 nor 3 axes")
    return shape


def _affine(header: bytes, order: str) -> Affine | None:
    qform, sform = struct.unpack_from(order + "2h", header, 252)
    if sform > 0:
        rows: npt.NDArray[np.float64] = np.array(struct.unpack_from(order + "12f", header, 280), dtype=np.float64).reshape(3, 4)
    elif qform > 0:
        rows = _quaternion_rows(header, order)
    else:
        return None
    return np.vstack([rows, [0.0, 0.0, 0.0, 1.0]])


def _quaternion_rows(header: bytes, order: str) -> npt.NDArray[np.float64]:
    b, c, d, *shift = struct.unpack_from(order + "6f", header, 256)
    handedness, *spacing = struct.unpack_from(order + "4f", header, 76)
    a = max(0.0, 1.0 - b * b - c * c - d * d) ** 0.5
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    scale = np.array(spacing) * [1.0, 1.0, -1.0 if handedness < 0 else 1.0]
    return np.column_stack([rotation * scale, shift])
