"""Doing an explanation again from its record, and telling whether the same bytes came out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from google.protobuf import json_format
from voxplain.errors import InvalidTensor, UnsupportedByModel
from voxplain.v1 import explain_pb2, tensor_pb2

from voxplain_client.command.usage_fault import UsageFault
from voxplain_client.payload import Payload
from voxplain_client.request import ExplainOptions, Request

MapName = tuple[str, str, str]
"""Method key, quantity, modalities."""

_OPTIONS = {
    tensor_pb2.TENSOR_ROLE_VOLUME: "--volume",
    tensor_pb2.TENSOR_ROLE_BASELINE: "--baseline",
    tensor_pb2.TENSOR_ROLE_LABELS: "--labels",
    tensor_pb2.TENSOR_ROLE_MASK: "--mask",
    tensor_pb2.TENSOR_ROLE_BACKGROUND: "--background",
}


def read_record(path: Path) -> explain_pb2.ExplanationRecord:
    """Read a record.json.

    Raises:
        UsageFault: it is not there, or is not one.
    """
    try:
        return json_format.Parse(path.read_text(encoding="utf-8"), explain_pb2.ExplanationRecord())
    except (OSError, UnicodeDecodeError, json_format.ParseError) as error:
        raise UsageFault("--replay", "the file is not the record.json of an explanation") from error


def apply_record(record: explain_pb2.ExplanationRecord, options: ExplainOptions) -> None:
    """Take everything but the tensors from the record."""
    options["model"] = record.model
    options["version"] = record.version
    options["methods"] = list(record.methods)
    options["target"] = record.target
    options["seed"] = record.seed
    options["budget"] = record.budget
    options["execution"] = record.execution
    options["grid"] = "model" if record.grid == explain_pb2.GRID_MODEL else "input"


def check_inputs(record: explain_pb2.ExplanationRecord, request: Request) -> None:
    """Refuse tensors that are not those of the record, before anything is computed.

    Raises:
        UsageFault: a tensor is missing or one too many.
        InvalidTensor: INPUT_DIFFERS, naming the option and what differs.
    """
    given = {_place(payload.header): payload for payload in request.payloads}
    recorded = {_place(held.tensor): held for held in record.inputs}
    for place in recorded.keys() - given.keys():
        raise UsageFault(_option(place), "the recorded explanation had this tensor: give its file again")
    for place in given.keys() - recorded.keys():
        raise UsageFault(_option(place), "the recorded explanation had no such tensor: leave it out")
    for place, held in recorded.items():
        difference = _difference(held, given[place])
        if difference:
            raise InvalidTensor("INPUT_DIFFERS", f"{difference}; give the file that was explained", field=_option(place))


def check_model(record: explain_pb2.ExplanationRecord, accepted: explain_pb2.Accepted) -> None:
    """Refuse a model that is not the record's, although it has its name.

    Raises:
        UnsupportedByModel: MODEL_DIFFERS.
    """
    if accepted.model_digest != record.model_digest:
        raise UnsupportedByModel("MODEL_DIFFERS", "the server's model file is not the recorded one", field="--replay")


def compare_maps(before: explain_pb2.ExplanationRecord, after: explain_pb2.ExplanationRecord) -> list[tuple[MapName, bool]]:
    """For every map of either record, whether both have the same bytes."""
    first, second = _digests(before.maps), _digests(after.maps)
    return [(name, first.get(name) == second.get(name)) for name in first | second]


def name_differences(before: explain_pb2.ExplanationRecord, after: explain_pb2.ExplanationRecord) -> list[str]:
    """What is not as it was, of all that decides the bytes."""
    found = [
        f"{name}: was {old or 'unknown'}, is {new or 'unknown'}"
        for name, old, new in (
            ("voxplain", before.voxplain_version, after.voxplain_version),
            ("metadata.json (SHA-256)", before.metadata_digest, after.metadata_digest),
            ("device", before.device, after.device),
            ("engine", before.execution.engine, after.execution.engine),
            ("threads per worker", str(before.execution.threads_per_worker), str(after.execution.threads_per_worker)),
            ("batch size", str(before.execution.batch_size), str(after.execution.batch_size)),
            ("block size", str(before.execution.block_size), str(after.execution.block_size)),
        )
        if old != new
    ]
    for package in sorted(before.package_versions.keys() | after.package_versions.keys()):
        old, new = before.package_versions.get(package, "absent"), after.package_versions.get(package, "absent")
        if old != new:
            found.append(f"{package}: was {old}, is {new}")
    clocked = [result.method_key for result in before.results if result.outcome == explain_pb2.OUTCOME_DEADLINE]
    return found + [f"{key}: was stopped by the clock, which no replay repeats" for key in clocked]


def _digests(maps: Iterable[explain_pb2.MapDigest]) -> dict[MapName, str]:
    return {(held.method_key, _quantity(held), " ".join(held.modalities)): held.sha256 for held in maps}


def _quantity(held: explain_pb2.MapDigest) -> str:
    return explain_pb2.Quantity.Name(held.quantity).removeprefix("QUANTITY_").lower().replace("_", "-")


def _place(tensor: tensor_pb2.Tensor) -> tuple[int, str, int]:
    return int(tensor.role), tensor.modality, tensor.case_index


def _option(place: tuple[int, str, int]) -> str:
    option = _OPTIONS.get(tensor_pb2.TensorRole.ValueType(place[0]), "tensor")
    return f"{option} {place[1]}".rstrip()


def _difference(held: explain_pb2.TensorDigest, payload: Payload) -> str:
    was, header = held.tensor, payload.header
    if list(was.shape) != list(header.shape) or was.data_type != header.data_type:
        return "the volume has another shape or type than the recorded one"
    affines_agree = len(was.affine) == len(header.affine) and np.allclose(was.affine, header.affine, rtol=0.0, atol=1e-6)
    if not affines_agree:
        return "the volume lies elsewhere in the patient than the recorded one (its affine differs)"
    return "" if payload.sha256() == held.sha256 else "the voxels are not the recorded ones"
