"""NIfTI files in and out. An array goes as it is; its affine says where it lies."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from voxplain.errors import InvalidTensor
from voxplain.volume import Affine, Geometry, Volume

_PLACE_FIELDS = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
# What a damaged file raises, in its header as well as in its voxels.
_UNREADABLE = (OSError, EOFError, ValueError, zlib.error, KeyError, OverflowError, MemoryError)
_READ_BYTES = 1 << 20
_MM_PER_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}


@dataclass(frozen=True, slots=True, eq=False)
class Nifti:
    """One volume of a file, and what is needed to write another one beside it.

    Attributes:
        volume: voxels as stored (scaled where the file scales them), affine in mm. No affine where the file states none: its
            orientation is then not known, whatever programs assume.
        header: nibabel's header.
        stored_shape: the shape in the file, which may have trailing axes of length 1.
    """

    volume: Volume
    header: Any
    stored_shape: tuple[int, ...]


def read_nifti(path: Path | str, *, field: str = "path") -> Nifti:
    """Read one volume: `read_nifti("t1.nii.gz").volume` goes into `Client.explain`.

    Args:
        path: .nii, .nii.gz or a pair.
        field: names the argument or option in errors.

    Raises:
        InvalidTensor: FILE_UNREADABLE, NOT_NIFTI or NOT_ONE_VOLUME.
    """
    import nibabel

    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Pair):
            raise InvalidTensor("NOT_NIFTI", "the file is not NIfTI; convert it to .nii or .nii.gz", field=field)
        voxels, affine = _voxels(image), _affine_mm(image)
    except (*_UNREADABLE, nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError) as error:
        raise InvalidTensor(
            "FILE_UNREADABLE", "the file cannot be read as NIfTI: check that it is there and whole", field=field
        ) from error
    stored_shape = voxels.shape
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim not in (2, 3):
        raise InvalidTensor(
            "NOT_ONE_VOLUME", "the file holds a series; write the one volume wanted to a file of its own", field=field
        )
    geometry = Geometry(shape=voxels.shape, affine=affine)
    return Nifti(volume=Volume(geometry=geometry, voxels=voxels), header=image.header, stored_shape=stored_shape)


def _voxels(image: Any) -> npt.NDArray[Any]:
    """Read the voxels; gzip to its end, because the checksum stands there."""
    path = Path(image.file_map["image"].filename)
    proxy: Any = image.dataobj
    if path.suffix.lower() != ".gz":
        return np.asanyarray(proxy)
    with gzip.open(path) as stream:
        layout = (proxy.shape, proxy.dtype, proxy.offset, proxy.slope, proxy.inter)
        voxels: npt.NDArray[Any] = np.asanyarray(type(proxy)(stream, layout))
        while stream.read(_READ_BYTES):
            pass
    return voxels


def drop_third_axis(nifti: Nifti) -> Nifti:
    """For a 2D model: a volume of one slice as a 2D grid. Others stay as they are."""
    voxels, geometry = nifti.volume.voxels, nifti.volume.geometry
    if voxels.ndim != 3 or voxels.shape[2] != 1:
        return nifti
    flat = Volume(geometry=Geometry(shape=geometry.shape[:2], affine=geometry.affine), voxels=voxels[:, :, 0])
    return Nifti(volume=flat, header=nifti.header, stored_shape=nifti.stored_shape)


def write_nifti(
    path: Path,
    voxels: npt.NDArray[Any],
    *,
    like: Nifti,
    geometry: Geometry | None = None,
    description: str = "",
    mark: str = "",
) -> None:
    """Write a map beside the volume that it explains.

    Args:
        path: where to; the folder must be there.
        voxels: float32.
        like: whose affine, qform and sform codes and units the file gets.
        geometry: the map's grid; None: that of `like`.
        description: at most 79 characters, into the header.
        mark: at most 15 characters, into the header's intent name: PARTIAL, for example.
    """
    import nibabel

    # A fresh header: extensions and free texts of the volume's file may tell who the patient is.
    header: Any = type(like.header)()
    for name in _PLACE_FIELDS:
        header[name] = like.header[name]
    own_grid = geometry is None or geometry.same_grid(like.volume.geometry)
    shaped = np.asarray(voxels.reshape(like.stored_shape) if own_grid else voxels, dtype=np.float32)
    header.set_data_dtype(np.float32)
    header.set_data_shape(shaped.shape)
    header["descrip"] = description.encode("ascii", "replace")[:79]
    header["intent_name"] = mark.encode("ascii", "replace")[:15]
    if header.get_xyzt_units()[0] == "unknown":
        header.set_xyzt_units("mm")
    image_type: Any = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    # Without an affine nibabel takes what the header says, codes included.
    image = image_type(shaped, None, header)
    if not own_grid and geometry is not None:
        _place(image, geometry, code=max(int(header["sform_code"]), int(header["qform_code"])))
    nibabel.save(image, path)


def _place(image: Any, geometry: Geometry, *, code: int) -> None:
    affine = geometry.affine if geometry.affine is not None else np.eye(4)
    known = max(code, 1) if geometry.affine is not None else 0
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, known)
    image.set_sform(affine, known)


def _affine_mm(image: Any) -> Affine | None:
    header = image.header
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        return None
    affine: Affine = np.array(image.affine, dtype=np.float64)
    affine[:3] *= _MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    return affine
