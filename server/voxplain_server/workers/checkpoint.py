"""What an interrupted call goes on from: the scores it has, and proof that they are ours and of this request.

A checkpoint travels to the client and comes back, so it is untrusted: authenticated before it is read, bounded before it is
unpacked, and bound to the model, the request, the way the work was cut, and the bytes of the tensors. It holds scores, never a
voxel.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from voxplain.errors import CheckpointRefused
from voxplain.v1 import explain_pb2

_MAGIC = b"VXC1"
_UNPACKED = 8
"""How much longer than its bound a checkpoint may be before it is packed: nobody shall make us unpack what fills the memory."""
_TAG_BYTES = hashlib.sha256().digest_size
_DIGEST_BYTES = hashlib.sha256().digest_size
_METHOD = struct.Struct("<HQQ")
_ROW = np.dtype([("start", "<u8"), ("stop", "<u8"), ("saved", "<u8")])


@dataclass(frozen=True, slots=True, eq=False)
class MethodScores:
    """The finished blocks of one method.

    Attributes:
        blocks: (blocks, 3) uint64: first evaluation, one past the last, and evaluations that needed no pass.
        scores: float64 of all these evaluations, block by block.
    """

    blocks: npt.NDArray[np.uint64]
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Scores of an interrupted call.

    Attributes:
        inputs: digest of the tensors and of what computed them; compared when a worker has read the tensors.
        methods: by key.
    """

    inputs: bytes
    methods: Mapping[str, MethodScores]


def bind_request(model_digest: str, spec: explain_pb2.ExplainSpec, execution: explain_pb2.Execution) -> bytes:
    """Digest of all that must be as before when a checkpoint comes back."""
    kept = explain_pb2.ExplainSpec()
    kept.CopyFrom(spec)
    for name in ("checkpoint", "request_id", "snapshot_interval", "execution"):
        kept.ClearField(name)
    digest = hashlib.sha256(model_digest.encode())
    for message in (kept, execution):
        encoded = message.SerializeToString(deterministic=True)
        digest.update(struct.pack("<Q", len(encoded)))
        digest.update(encoded)
    return digest.digest()


def bind_inputs(digests: Mapping[str, str], versions: Mapping[str, str]) -> bytes:
    """Digest of the tensors' SHA-256 and of the packages' versions: other packages may answer with other bits."""
    lines = [f"{kind} {name} {value}" for kind, table in (("i", digests), ("v", versions)) for name, value in table.items()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).digest()


def pack_checkpoint(checkpoint: Checkpoint, *, binding: bytes, key: bytes, max_bytes: int) -> bytes:
    """Make the bytes that the client keeps; empty where `unpack_checkpoint` would refuse them as too long."""
    parts = [checkpoint.inputs]
    for name, method in checkpoint.methods.items():
        encoded = name.encode()
        parts.append(_METHOD.pack(len(encoded), len(method.blocks), method.scores.size))
        parts += [encoded, method.blocks.astype("<u8").tobytes(), method.scores.astype("<f8").tobytes()]
    raw = b"".join(parts)
    body = zlib.compress(raw, level=1)
    packed = _MAGIC + _tag(body, binding, key) + body
    return packed if len(packed) <= max_bytes and len(raw) <= max_bytes * _UNPACKED else b""


def unpack_checkpoint(packed: bytes, *, binding: bytes, key: bytes, max_bytes: int) -> Checkpoint:
    """Read what came back.

    Args:
        packed: what the client sent.
        binding: of this request (bind_request).
        key: the server's.
        max_bytes: bound of the packed bytes; unpacked they may be `_UNPACKED` times as long.

    Raises:
        CheckpointRefused: CHECKPOINT_INVALID; it is not ours, not of this request, or damaged.
    """
    if len(packed) > max_bytes or packed[:4] != _MAGIC or len(packed) < 4 + _TAG_BYTES:
        raise _refusal()
    tag, body = packed[4 : 4 + _TAG_BYTES], packed[4 + _TAG_BYTES :]
    if not hmac.compare_digest(tag, _tag(body, binding, key)):
        raise _refusal()
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(body, max_bytes * _UNPACKED)
    except zlib.error as error:
        raise _refusal() from error
    if not stream.eof:
        raise _refusal()
    return _parse(raw)


def _parse(raw: bytes) -> Checkpoint:
    inputs, rest, methods = raw[:_DIGEST_BYTES], memoryview(raw)[_DIGEST_BYTES:], {}
    while rest:
        if len(rest) < _METHOD.size:
            raise _refusal()
        name_bytes, blocks, scores = _METHOD.unpack(rest[: _METHOD.size])
        rows_at = _METHOD.size + name_bytes
        scores_at = rows_at + blocks * _ROW.itemsize
        end = scores_at + scores * 8
        if end > len(rest):
            raise _refusal()
        name = bytes(rest[_METHOD.size : rows_at]).decode()
        rows = np.frombuffer(rest[rows_at:scores_at], dtype="<u8").reshape(-1, 3)
        methods[name] = MethodScores(blocks=rows, scores=np.frombuffer(rest[scores_at:end], dtype="<f8"))
        rest = rest[end:]
    return Checkpoint(inputs=inputs, methods=methods)


def _tag(body: bytes, binding: bytes, key: bytes) -> bytes:
    return hmac.new(key, _MAGIC + binding + body, hashlib.sha256).digest()


def _refusal() -> CheckpointRefused:
    return CheckpointRefused(
        "CHECKPOINT_INVALID",
        "this server did not make the checkpoint for this request: another server key made it, or it is of another request or "
        "damaged; leave it out to start anew (operators: give all servers one VOXPLAIN_CHECKPOINT_KEY)",
        field="checkpoint",
    )
