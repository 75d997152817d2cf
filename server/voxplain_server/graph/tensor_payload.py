"""How many bytes a tensor must have, and whether it has them."""

import math
from collections.abc import Mapping

import onnx

from voxplain_server.graph.model_file_error import ModelFileError

_T = onnx.TensorProto
_BITS: Mapping[int, int] = {
    _T.BOOL: 8,
    _T.INT8: 8,
    _T.UINT8: 8,
    _T.INT16: 16,
    _T.UINT16: 16,
    _T.INT32: 32,
    _T.UINT32: 32,
    _T.INT64: 64,
    _T.UINT64: 64,
    _T.FLOAT16: 16,
    _T.BFLOAT16: 16,
    _T.FLOAT: 32,
    _T.DOUBLE: 64,
    _T.INT4: 4,
    _T.UINT4: 4,
    _T.FLOAT8E4M3FN: 8,
    _T.FLOAT8E4M3FNUZ: 8,
    _T.FLOAT8E5M2: 8,
    _T.FLOAT8E5M2FNUZ: 8,
}
_FIELDS: Mapping[int, str] = {
    _T.FLOAT: "float_data",
    _T.DOUBLE: "double_data",
    _T.INT64: "int64_data",
    _T.UINT32: "uint64_data",
    _T.UINT64: "uint64_data",
}
_ALL_FIELDS = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")


def payload_bytes(tensor: onnx.TensorProto) -> int:
    """The size in bytes that type and dimensions declare. Raises ModelFileError for an unknown type or a negative size."""
    if any(size < 0 for size in tensor.dims):
        raise ModelFileError("CORRUPT_MODEL_FILE", "a tensor has a negative dimension: export the model again")
    if tensor.data_type not in _BITS:
        raise ModelFileError("CORRUPT_MODEL_FILE", "a tensor has no numeric type: export the model with numeric weights")
    return -(-math.prod(tensor.dims) * _BITS[tensor.data_type] // 8)


def check_payload(tensor: onnx.TensorProto) -> None:
    """Raise ModelFileError unless a tensor stored in the model file has as many elements as it declares."""
    if tensor.data_type == _T.STRING:
        _require(len(tensor.string_data) == math.prod(tensor.dims) and min(tensor.dims, default=0) >= 0)
        return
    declared = payload_bytes(tensor)
    filled = [name for name in _ALL_FIELDS if getattr(tensor, name)]
    if tensor.HasField("segment") or (tensor.HasField("raw_data") and tensor.raw_data and filled) or len(filled) > 1:
        raise ModelFileError("CORRUPT_MODEL_FILE", "a tensor is stored in several places: export the model again")
    if not filled:
        _require(len(tensor.raw_data) == declared)
        return
    bits = _BITS[tensor.data_type]
    field = _FIELDS.get(tensor.data_type, "int32_data")
    elements = declared if bits < 8 else math.prod(tensor.dims)
    _require(filled == [field] and len(getattr(tensor, field)) == elements)


def _require(fits: bool) -> None:
    if not fits:
        raise ModelFileError("TENSOR_SIZE_MISMATCH", "a tensor does not hold what its dimensions say: export the model again")
