"""What a caller asks, and the messages that say it to the server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Required, TypedDict

from google.protobuf.duration_pb2 import Duration
from voxplain.errors import InvalidSpec, InvalidTensor
from voxplain.v1 import explain_pb2, method_pb2, tensor_pb2
from voxplain.wire import encode_chunks

from voxplain_client.payload import Payload, VolumeLike, make_payload
from voxplain_client.sent_tensors import use_sent_tensors
from voxplain_client.targets import ScaleName, TargetLike, make_target

_GRIDS = {"input": explain_pb2.GRID_INPUT, "model": explain_pb2.GRID_MODEL}


class ExplainOptions(TypedDict, total=False):
    """The keyword arguments of `Client.explain`, `Client.estimate` and their async twins.

    Only `model`, `volumes` and `methods` are required. Everything else is left to the server's documented defaults.
    """

    model: Required[str]
    """Name, as `models()` lists it."""
    volumes: Required[Mapping[str, VolumeLike]]
    """One volume for every modality of the model. Voxels of a NIfTI go as they are, with its affine."""
    methods: Required[Sequence[method_pb2.Method | str]]
    """Methods in the order they shall run: typed messages, or kebab names for all defaults."""
    version: str
    """Default: the highest number."""
    target: TargetLike | None
    """A class by name or index, `contrast(a, b)`, or a whole Target. Default: the predicted class."""
    scale: ScaleName | None
    """The scale on which the score is explained."""
    labels: VolumeLike | Mapping[str, VolumeLike] | None
    """Features as whole numbers, 0 for background: one label map shared by all modalities, or one for each. Every method with a
    grouping takes its features from there, unless it sets a grouping itself."""
    baselines: Mapping[str, VolumeLike] | None
    """What stands for "absent" in each modality. Every method with a baseline (occlusion: its fill) takes it, unless it sets
    one itself."""
    background: Sequence[Mapping[str, VolumeLike]]
    """Other cases, from which feature-permutation takes voxels, and methods that set `baseline.background` their baseline. All
    other methods leave them unread."""
    mask: VolumeLike | None
    """Region (non-zero = inside) over which a segmentation's score is averaged."""
    seed: int | None
    """Seeds every random draw."""
    budget: explain_pb2.Budget | None
    """When to stop early."""
    snapshot_interval: float | None
    """Least time between two snapshots of a map, in seconds. None: no snapshots."""
    checkpoint: bytes
    """Checkpoint of an interrupted call."""
    execution: explain_pb2.Execution | None
    """Pins how the work is cut, to reproduce maps byte by byte."""
    grid: Literal["input", "model"] | None
    """The grid of the maps. Default: that of the volumes sent."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A spec and the tensors that it declares.

    Attributes:
        spec: never changed; a resumed call copies it.
        payloads: in the order of spec.tensors.
    """

    spec: explain_pb2.ExplainSpec
    payloads: tuple[Payload, ...]

    def messages(self, *, checkpoint: bytes = b"", version: str = "") -> Iterator[bytes]:
        """The serialised ExplainRequests: the spec, then every tensor in chunks with checksums.

        Args:
            checkpoint: goes on from there; empty: as in the spec.
            version: pins the version that an earlier call was answered by; empty: as in the spec.
        """
        request = explain_pb2.ExplainRequest(spec=self.spec)
        request.spec.checkpoint = checkpoint or self.spec.checkpoint
        request.spec.version = version or self.spec.version
        yield request.SerializeToString()
        for payload in self.payloads:
            yield from encode_chunks(payload.header.id, payload.bytes())


def build_request(options: ExplainOptions) -> Request:
    """Make the messages for what a caller asks.

    Raises:
        InvalidSpec, InvalidTensor: what the server would refuse and can be seen here without it.
    """
    payloads = tuple(_payloads(options))
    methods = [use_sent_tensors(method, [payload.header for payload in payloads]) for method in options["methods"]]
    spec = explain_pb2.ExplainSpec(
        request_id=uuid.uuid4().hex,
        model=options["model"],
        version=options.get("version", ""),
        target=_target(options),
        methods=methods,
        tensors=[payload.header for payload in payloads],
        budget=options.get("budget"),
        checkpoint=options.get("checkpoint", b""),
        execution=options.get("execution"),
    )
    seed, interval, grid = options.get("seed"), options.get("snapshot_interval"), options.get("grid")
    if seed is not None:
        if not 0 <= seed < 1 << 64:
            raise InvalidSpec("SEED_INVALID", "a seed is a whole number from 0 to 2^64 - 1", field="seed")
        spec.seed = seed
    if interval is not None:
        spec.snapshot_interval.CopyFrom(seconds(interval, field="snapshot_interval"))
    if grid is not None:
        if grid not in _GRIDS:
            raise InvalidSpec("GRID_INVALID", f"grid is one of {', '.join(_GRIDS)}", field="grid")
        spec.grid = _GRIDS[grid]
    return Request(spec=spec, payloads=payloads)


def seconds(value: float, *, field: str) -> Duration:
    """A protobuf Duration of so many seconds.

    Raises:
        InvalidSpec: DURATION_INVALID, for a negative or endless one.
    """
    if not 0 <= value < 1e9:
        raise InvalidSpec("DURATION_INVALID", "a duration is at least 0 s and below 30 years", field=field)
    duration = Duration()
    duration.FromNanoseconds(round(value * 1e9))
    return duration


def _target(options: ExplainOptions) -> explain_pb2.Target | None:
    target = make_target(options.get("target"), scale=options.get("scale"))
    if options.get("mask") is not None:
        target = target or explain_pb2.Target()
        target.region.mask_tensor_id = "mask"
    return target


def _payloads(options: ExplainOptions) -> Iterator[Payload]:
    yield from _by_modality("volume", tensor_pb2.TENSOR_ROLE_VOLUME, options["volumes"])
    yield from _by_modality("baseline", tensor_pb2.TENSOR_ROLE_BASELINE, options.get("baselines") or {})
    for index, case in enumerate(options.get("background") or ()):
        yield from _by_modality(f"background-{index}", tensor_pb2.TENSOR_ROLE_BACKGROUND, case, case_index=index)
    labels, mask = options.get("labels"), options.get("mask")
    if isinstance(labels, Mapping):
        yield from _by_modality("labels", tensor_pb2.TENSOR_ROLE_LABELS, labels)
    elif labels is not None:
        yield make_payload(tensor_pb2.Tensor(id="labels", role=tensor_pb2.TENSOR_ROLE_LABELS), labels, field="labels")
    if mask is not None:
        yield make_payload(tensor_pb2.Tensor(id="mask", role=tensor_pb2.TENSOR_ROLE_MASK), mask, field="mask")


def _by_modality(
    prefix: str,
    role: tensor_pb2.TensorRole.ValueType,
    volumes: Mapping[str, VolumeLike],
    *,
    case_index: int = 0,
) -> Iterator[Payload]:
    if not isinstance(volumes, Mapping):
        told = 'give one volume for each modality by its name: {"t1": ..., "flair": ...}'
        raise InvalidTensor("NOT_BY_MODALITY", told, field=prefix)
    # Numbered, because a modality's name may hold characters that an id may not.
    for number, (modality, volume) in enumerate(volumes.items()):
        header = tensor_pb2.Tensor(id=f"{prefix}-{number}", role=role, modality=modality, case_index=case_index)
        yield make_payload(header, volume, field=f"{prefix}[{modality}]")
