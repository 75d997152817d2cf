"""ModelInfer on the wire: raw tensors stay where they came, and go out from where they are.

protobuf would copy each of them twice on its way in, and twice on its way out.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError
from voxplain.errors import InvalidSpec, LimitExceeded
from voxplain.inference import open_inference_pb2

_RAW_INPUT = 7 << 3 | 2
_RAW_OUTPUT = 6 << 3 | 2
_FIXED = {1: 8, 5: 4}
_LENGTH_DELIMITED = 2
MAX_FIELDS = 4096
"""Fields of one message, so that walking them never holds up the others."""


def split_request(message: bytes) -> tuple[open_inference_pb2.ModelInferRequest, list[memoryview]]:
    """A request without its raw contents, and those as views of the message.

    Raises:
        InvalidSpec: MALFORMED_MESSAGE.
        LimitExceeded: TOO_MANY_FIELDS.
    """
    view, at = memoryview(message), 0
    raw: list[memoryview] = []
    rest: list[memoryview] = []
    try:
        while at < len(message):
            begin = at
            tag, at = _read_varint(message, at)
            kind = tag & 7
            if kind == 0:
                _, at = _read_varint(message, at)
            elif kind == _LENGTH_DELIMITED:
                size, at = _read_varint(message, at)
                at += size
            else:
                at += _FIXED[kind]
            if at > len(message):
                raise IndexError
            if tag == _RAW_INPUT:
                raw.append(view[at - size : at])
            else:
                rest.append(view[begin:at])
            if len(raw) + len(rest) > MAX_FIELDS:
                raise LimitExceeded("TOO_MANY_FIELDS", "send fewer inputs, outputs and parameters", field="inputs")
        return open_inference_pb2.ModelInferRequest.FromString(b"".join(rest)), raw
    except (IndexError, KeyError, DecodeError):
        raise InvalidSpec("MALFORMED_MESSAGE", "the message is not one of this contract") from None


def join_response(response: open_inference_pb2.ModelInferResponse, raw: Sequence[memoryview]) -> bytes:
    """A response with these raw contents."""
    parts: list[bytes | memoryview] = [response.SerializeToString()]
    for content in raw:
        parts += [bytes([_RAW_OUTPUT]) + _varint(content.nbytes), content]
    return b"".join(parts)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        byte = message[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise IndexError
