"""What one tensor's header shows by itself, before a byte of it is there."""

from __future__ import annotations

import re
from typing import NoReturn

import numpy as np
from voxplain.errors import InvalidSpec
from voxplain.v1 import tensor_pb2
from voxplain.volume import Affine, Geometry

from voxplain_server.models.model import Model, OutputKind

MAX_AXIS = 8192
MAX_VOXELS = 1 << 32
MAX_BACKGROUND_CASES = 64

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SPACING_BOUNDS_MM = (1e-4, 1e4)
_FARTHEST_MM = 1e7

_VOLUMES = (tensor_pb2.DATA_TYPE_FLOAT32, tensor_pb2.DATA_TYPE_INT16, tensor_pb2.DATA_TYPE_UINT8)
_DTYPES_BY_ROLE = {
    tensor_pb2.TENSOR_ROLE_VOLUME: _VOLUMES,
    tensor_pb2.TENSOR_ROLE_BASELINE: _VOLUMES,
    tensor_pb2.TENSOR_ROLE_BACKGROUND: _VOLUMES,
    tensor_pb2.TENSOR_ROLE_LABELS: (
        tensor_pb2.DATA_TYPE_INT32,
        tensor_pb2.DATA_TYPE_INT16,
        tensor_pb2.DATA_TYPE_UINT8,
    ),
    tensor_pb2.TENSOR_ROLE_MASK: (tensor_pb2.DATA_TYPE_UINT8,),
}
_WITHOUT_MODALITY = (tensor_pb2.TENSOR_ROLE_LABELS, tensor_pb2.TENSOR_ROLE_MASK)


def check_header(model: Model, index: int, header: tensor_pb2.Tensor) -> Geometry:
    """Check one header against what its role and the model allow.

    Args:
        model: the model.
        index: of the tensor in the spec, for the field's name.
        header: what the client declared.

    Returns:
        The tensor's grid.

    Raises:
        voxplain.errors.InvalidSpec: TENSOR_ID_INVALID, ROLE_INVALID, DTYPE_MISMATCH, MODALITY_UNKNOWN, CASE_INDEX_INVALID,
            RANK_MISMATCH, SHAPE_INVALID or AFFINE_INVALID.
    """

    def refuse(field: str, reason: str, message: str) -> NoReturn:
        raise InvalidSpec(reason, message, field=f"tensors[{index}].{field}")

    role = header.role
    if not _ID.fullmatch(header.id):
        refuse("id", "TENSOR_ID_INVALID", "A tensor's id has 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'.")
    if role not in _DTYPES_BY_ROLE:
        refuse("role", "ROLE_INVALID", "Every tensor needs a role: VOLUME, BASELINE, LABELS, MASK or BACKGROUND.")
    if role == tensor_pb2.TENSOR_ROLE_MASK and model.output.kind is not OutputKind.SEGMENTATION:
        refuse("role", "ROLE_INVALID", "A mask is a segmentation's region, and this model does not segment. Leave it out.")
    if header.data_type not in _DTYPES_BY_ROLE[role]:
        allowed = ", ".join(tensor_pb2.DataType.Name(kind).removeprefix("DATA_TYPE_") for kind in _DTYPES_BY_ROLE[role])
        refuse("data_type", "DTYPE_MISMATCH", f"A tensor of this role must be one of {allowed}. Convert it.")
    if header.modality not in model.modality_names and (header.modality or role not in _WITHOUT_MODALITY):
        refuse("modality", "MODALITY_UNKNOWN", f"The modalities of this model are {', '.join(model.modality_names)}.")
    highest = MAX_BACKGROUND_CASES - 1 if role == tensor_pb2.TENSOR_ROLE_BACKGROUND else 0
    if header.case_index > highest:
        refuse("case_index", "CASE_INDEX_INVALID", f"It is 0, and for background cases at most {MAX_BACKGROUND_CASES - 1}.")
    ranks = sorted({len(spec.shape) for spec in model.modalities if header.modality in ("", spec.name)})
    if len(header.shape) not in ranks:
        refuse("shape", "RANK_MISMATCH", f"This model's volumes have {' or '.join(map(str, ranks))} axes. Send that many.")
    voxels = np.prod([float(size) for size in header.shape])
    if not all(1 <= size <= MAX_AXIS for size in header.shape) or voxels > MAX_VOXELS:
        refuse("shape", "SHAPE_INVALID", f"Every axis must have 1 to {MAX_AXIS} voxels, and a tensor at most 2**32.")
    return Geometry(tuple(header.shape), _affine(index, header))


def check_affine(affine: Affine, rank: int) -> str:
    """Say what is wrong with an affine, or nothing: its numbers, its last row, its spacing, and axes that fall together."""
    if not np.isfinite(affine).all() or np.abs(affine).max() > _FARTHEST_MM:
        return "holds numbers that are not finite or farther than 10 km"
    if not np.array_equal(affine[3], [0.0, 0.0, 0.0, 1.0]):
        return "must have the last row 0, 0, 0, 1"
    spacing = np.linalg.norm(affine[:3, :rank], axis=0)
    low, high = _SPACING_BOUNDS_MM
    if not ((spacing >= low) & (spacing <= high)).all():
        return f"must have a spacing from {low:g} to {high:g} mm along every axis"
    if np.linalg.svd(affine[:3, :rank] / spacing, compute_uv=False).min() < 1e-3:
        return "is singular: two of its axes run in one direction"
    return ""


def _affine(index: int, header: tensor_pb2.Tensor) -> Affine | None:
    numbers = len(header.affine)
    if numbers == 0:
        return None
    affine = np.array(header.affine, dtype=np.float64)
    wrong = check_affine(affine.reshape(4, 4), len(header.shape)) if numbers == 16 else "must have 16 numbers, or none"
    if wrong:
        message = f"The affine {wrong}. Send the one of the image file."
        raise InvalidSpec("AFFINE_INVALID", message, field=f"tensors[{index}].affine")
    return affine.reshape(4, 4)
