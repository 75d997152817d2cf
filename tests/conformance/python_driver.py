"""The driver around the Python client."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format
from voxplain.errors import VoxplainError
from voxplain.v1 import explain_pb2, tensor_pb2
from voxplain.volume import Geometry, Volume
from voxplain.wire import DTYPES, encode_chunks
from voxplain_client import Access, Client, MapReceived, Resuming
from voxplain_client.payload import Payload, make_payload
from voxplain_client.request import Request

SMALL_CHUNK = 1000
"""Bytes: small enough that every tensor has several chunks to interleave."""


class TroubledRequest(Request):
    """A request whose upload goes as a scenario wants it."""

    __slots__ = ("upload",)

    def messages(self, *, checkpoint: bytes = b"", version: str = "") -> Iterator[bytes]:
        """The spec, then chunks in another order, too few of them, or one with a wrong checksum."""
        messages = super().messages(checkpoint=checkpoint, version=version)
        yield next(messages)
        tensors = [(payload.header.id, payload.bytes()) for payload in self.payloads]
        rows = [list(encode_chunks(name, data, chunk_bytes=SMALL_CHUNK)) for name, data in tensors]
        upload = object.__getattribute__(self, "upload")
        if upload == "interleaved":
            for place in range(max(map(len, rows))):
                yield from (row[place] for row in rows if place < len(row))
        elif upload == "close-early":
            yield from rows[0]
        else:
            yield b"".join((rows[0][0][:-1], bytes([rows[0][0][-1] ^ 1])))


def main() -> None:
    """Answer requests until the input ends."""
    for line in sys.stdin:
        _answer(json.loads(line))
        _tell("end")


def _answer(asked: Mapping[str, Any]) -> None:
    request = _request(asked)
    start = time.monotonic()
    with Client(asked["server"], access=_access(asked)) as client:
        explanation = client.send(request, timeout_s=asked.get("timeout_s"))
        try:
            for event in explanation:
                _tell_event(event, time.monotonic() - start)
                if asked.get("cancel_after") == "progress" and isinstance(event, explain_pb2.Progress):
                    explanation.cancel()
        except VoxplainError as error:
            _tell(
                "error",
                t=time.monotonic() - start,
                kind=type(error).__name__,
                reason=error.reason,
                field=error.field,
                retry_after_s=error.retry_after_s,
            )


def _access(asked: Mapping[str, Any]) -> Access:
    """Its files; a token is written beside the certificate, because this client reads it from there."""
    ca, cert, key = (Path(asked[name]) if name in asked else None for name in ("ca_file", "certificate_file", "key_file"))
    token_file = None
    if ca is not None and "token" in asked:
        token_file = ca.with_suffix(".token")
        token_file.write_text(asked["token"])
    return Access(ca=ca, cert=cert, key=key, token_file=token_file)


def _request(asked: Mapping[str, Any]) -> Request:
    payloads = tuple(_payload(place, volume) for place, volume in enumerate(asked["volumes"]))
    spec = json_format.ParseDict(asked["spec"], explain_pb2.ExplainSpec())
    spec.tensors.extend(payload.header for payload in payloads)
    if asked.get("upload", "in-order") == "in-order":
        return Request(spec, payloads)
    request = TroubledRequest(spec, payloads)
    object.__setattr__(request, "upload", asked["upload"])
    return request


def _payload(place: int, volume: Mapping[str, Any]) -> Payload:
    dtype = DTYPES[tensor_pb2.DataType.Value(volume["data_type"])]
    voxels = np.fromfile(Path(volume["file"]), dtype=dtype).reshape(volume["shape"])
    header = tensor_pb2.Tensor(
        id=f"tensor-{place}", role=tensor_pb2.TensorRole.Value(volume["role"]), modality=volume["modality"]
    )
    geometry = Geometry(voxels.shape, np.array(volume["affine"]).reshape(4, 4))
    return make_payload(header, Volume(geometry, voxels), field=f"volumes[{place}]")


def _tell_event(event: object, t: float) -> None:
    if isinstance(event, explain_pb2.Accepted):
        _tell("accepted", t=t, model=event.model, version=event.version)
    elif isinstance(event, explain_pb2.Prediction):
        _tell("prediction", t=t, score=event.score, target_name=event.target_name)
    elif isinstance(event, explain_pb2.Progress):
        _tell(
            "progress",
            t=t,
            stage=explain_pb2.Progress.Stage.Name(event.stage).removeprefix("STAGE_"),
            method_key=event.method_key,
            evaluations_done=event.evaluations_done,
            checkpoint=bool(event.checkpoint),
            bytes_received=event.bytes_received,
            bytes_total=event.bytes_total,
        )
    elif isinstance(event, MapReceived):
        header = event.header
        _tell(
            "map",
            t=t,
            method_key=header.method_key,
            quantity=explain_pb2.Quantity.Name(header.quantity).removeprefix("QUANTITY_"),
            modalities=list(header.modalities),
            shape=list(event.array.shape),
            snapshot=header.snapshot,
            sha256=event.sha256,
        )
    elif isinstance(event, explain_pb2.MethodResult):
        outcome = explain_pb2.Outcome.Name(event.outcome).removeprefix("OUTCOME_")
        _tell("result", t=t, method_key=event.method_key, outcome=outcome, reason=event.reason)
    elif isinstance(event, explain_pb2.ExplanationRecord):
        _tell("record", t=t, maps=len(event.maps), model_digest=event.model_digest)
    elif isinstance(event, Resuming):
        _tell("resuming", t=t, reason=event.fault.reason, wait_s=event.wait_s, from_checkpoint=event.from_checkpoint)


def _tell(event: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
