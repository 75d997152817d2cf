"""Weights kept in a file beside the model: read by us alone, and only from a plain file of its own in the same folder.

Loaders that follow the location in the file have been talked into reading any file of the host through `..`, absolute paths,
symbolic and hard links, and into reading past the end of a file (CVE-2022-25882, CVE-2024-27318 and their successors).
"""

import os
import pathlib
import stat
from typing import Protocol

import onnx

from voxplain_server.graph.model_file_error import ModelFileError
from voxplain_server.graph.tensor_payload import payload_bytes

_KNOWN_KEYS = frozenset({"location", "offset", "length", "checksum"})


_READ_BYTES = 1 << 20


class Digest(Protocol):
    """What hashlib makes."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""


class ExternalData:
    """The folder of one model file, and how many bytes may still be read from it. A context manager."""

    def __init__(self, folder: pathlib.Path, *, allowance: int) -> None:
        self._allowance = allowance
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._files: dict[str, int] = {}
        self._states: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> "ExternalData":
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (*self._files.values(), self._folder):
            os.close(descriptor)

    def load(self, tensor: onnx.TensorProto) -> None:
        """Bring the bytes of `tensor` into it; it is no longer external then.

        Raises ModelFileError: EXTERNAL_DATA_ESCAPES, EXTERNAL_DATA_OUT_OF_RANGE, TENSOR_SIZE_MISMATCH, MODEL_TOO_LARGE.
        """
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if not entries.keys() <= _KNOWN_KEYS or len(entries) != len(tensor.external_data) or tensor.raw_data:
            raise ModelFileError("CORRUPT_MODEL_FILE", "external data is described in an unknown way: export the model again")
        length = payload_bytes(tensor)
        if _number(entries.get("length", str(length))) != length:
            raise ModelFileError("TENSOR_SIZE_MISMATCH", "external data has not the length its tensor declares")
        self._allowance -= length
        if self._allowance < 0:
            raise ModelFileError("MODEL_TOO_LARGE", "the model with its external data exceeds the limit: raise or shrink it")
        descriptor = self._open(entries.get("location", ""))
        offset = _number(entries.get("offset", "0"))
        if offset + length > os.fstat(descriptor).st_size:
            raise ModelFileError("EXTERNAL_DATA_OUT_OF_RANGE", "external data lies beyond the end of its file")
        tensor.raw_data = _read(descriptor, offset, length)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]

    def add_to(self, digest: Digest) -> None:
        """Add every file that was read, whole, in the order of their names.

        Raises ModelFileError: CORRUPT_MODEL_FILE where one was written to since it was opened.
        """
        for location, descriptor in sorted(self._files.items()):
            offset = 0
            while block := os.pread(descriptor, _READ_BYTES, offset):
                digest.update(block)
                offset += len(block)
            if _state(os.fstat(descriptor)) != self._states[location]:
                raise ModelFileError(
                    "CORRUPT_MODEL_FILE", "external data was changed while it was read: write it anew, then move"
                )

    def _open(self, location: str) -> int:
        if location not in self._files:
            if not location or location in (".", "..") or any(character in location for character in "/\\\0"):
                raise _escapes()
            # O_NONBLOCK: opening a named pipe would else wait for its writer.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                descriptor = os.open(location, flags, dir_fd=self._folder)
            except (OSError, ValueError) as error:
                raise _escapes() from error
            self._files[location] = descriptor
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise _escapes()
            self._states[location] = _state(status)
        return self._files[location]


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _read(descriptor: int, offset: int, length: int) -> bytes:
    content = bytearray(length)
    view = memoryview(content)
    done = 0
    while done < length:
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if count == 0:
            raise ModelFileError("EXTERNAL_DATA_OUT_OF_RANGE", "external data lies beyond the end of its file")
        done += count
    return bytes(content)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ModelFileError("EXTERNAL_DATA_OUT_OF_RANGE", "external data has no valid offset or length")
    return int(text)


def _escapes() -> ModelFileError:
    return ModelFileError(
        "EXTERNAL_DATA_ESCAPES",
        "external data must lie in a plain file beside the model, neither link nor folder: export with external_data=False",
    )
