"""Reading one ONNX file that nobody vouches for. Nothing in it is executed, nothing outside its folder is opened."""

import hashlib
import os
import pathlib
import stat
from dataclasses import dataclass

import onnx
import onnx.checker
import onnx.inliner
from google.protobuf.message import DecodeError

from voxplain_server.graph.external_data import ExternalData
from voxplain_server.graph.local_functions import check_functions, function_keys
from voxplain_server.graph.model_file_error import ModelFileError as ModelFileError
from voxplain_server.graph.onnx_walk import nodes_of, owners_of, tensors_of
from voxplain_server.graph.tensor_payload import check_payload

_PROTOBUF_LIMIT = 2**31 - 1
_STANDARD_DOMAINS = frozenset({"", "ai.onnx"})


@dataclass(frozen=True, slots=True, eq=False)
class OnnxFile:
    """A model file that was read.

    Attributes:
        proto: the model: self-contained, of standard operators only, its local functions inlined.
        digest: SHA-256 of the bytes that it was made from: the file, then the files of its weights in the order of their names.
    """

    proto: onnx.ModelProto
    digest: str


def read_onnx(path: pathlib.Path, *, max_bytes: int) -> onnx.ModelProto:
    """The model of `read_onnx_file`."""
    return read_onnx_file(path, max_bytes=max_bytes).proto


def read_onnx_file(path: pathlib.Path, *, max_bytes: int) -> OnnxFile:
    """Read the model at `path`. Every file is opened once: the digest is the model's, whatever happens to the folder meanwhile.

    `max_bytes` bounds the file together with external data, and so do the 2 GiB that no protobuf exceeds.
    Raises ModelFileError, whose reasons stand in its docstring.
    """
    max_bytes = min(max_bytes, _PROTOBUF_LIMIT)
    content = _content(path, max_bytes)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, RecursionError) as error:
        raise _corrupt("is truncated or no ONNX file") from error
    if not model.graph.output or not model.opset_import or not model.ir_version:
        raise _corrupt("holds no whole graph")
    # What a training loop would need is no part of the network, and one more place for tensors to hide.
    del model.training_info[:]
    _check_domains(model)
    digest = hashlib.sha256(content)
    with ExternalData(path.parent, allowance=max_bytes - len(content)) as external:
        _gather_tensors(model, external)
        external.add_to(digest)
    check_functions(model)
    return OnnxFile(_inlined(model), digest.hexdigest())


def _content(path: pathlib.Path, max_bytes: int) -> bytes:
    try:
        # O_NONBLOCK: opening a named pipe would else wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ModelFileError("MODEL_FILE_UNREADABLE", "the model file cannot be opened: check that it is there") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError("MODEL_FILE_UNREADABLE", "the model file is not a regular file")
        if status.st_size > max_bytes:
            raise _too_large()
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            # One byte more than allowed: the file may have grown since its size was asked.
            content = file.read(max_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > max_bytes:
        raise _too_large()
    return content


def _check_domains(model: onnx.ModelProto) -> None:
    local = function_keys(model)
    for owner in owners_of(model):
        for node in nodes_of(owner):
            if node.domain not in _STANDARD_DOMAINS and (node.domain, node.op_type, node.overload) not in local:
                raise ModelFileError(
                    "UNKNOWN_OPERATOR_DOMAIN",
                    "an operator is not of the ONNX standard: export the model with standard operators only",
                )


def _gather_tensors(model: onnx.ModelProto, external: ExternalData) -> None:
    for tensor in tensors_of(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            external.load(tensor)
        elif tensor.external_data:
            raise _corrupt("describes external data for a tensor that has none")
        check_payload(tensor)


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    for owner in owners_of(model):
        for node in nodes_of(owner):
            if node.domain == "ai.onnx":
                node.domain = ""
    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        _keep_standard_opset(model)
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, RuntimeError, ValueError, TypeError) as error:
        raise _corrupt("breaks the rules of ONNX") from error
    if any(node.domain not in _STANDARD_DOMAINS for node in nodes_of(model.graph)):
        raise _corrupt("calls a function that it does not define")
    return model


def _keep_standard_opset(model: onnx.ModelProto) -> None:
    versions = {entry.version for entry in model.opset_import if entry.domain in _STANDARD_DOMAINS}
    if len(versions) != 1:
        raise _corrupt("names no single version of the ONNX operators")
    del model.opset_import[:]
    model.opset_import.add(domain="", version=versions.pop())


def _too_large() -> ModelFileError:
    return ModelFileError("MODEL_TOO_LARGE", "the model file exceeds the limit: raise it, or shrink the model")


def _corrupt(what: str) -> ModelFileError:
    return ModelFileError("CORRUPT_MODEL_FILE", f"the model file {what}: export or copy it again")
