"""metadata.json: the MONAI bundle schema, and one optional object for what it has no word for.

Schema: MONAI bundle specification, "metadata.json", key network_data_format. Read are, of every input: num_channels,
spatial_shape, channel_def, is_patch_data; of the output: type, format, num_channels, channel_def. Everything else in the
file is left alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxplain_server.models.json_object import JsonObject, parse_json_object, read_json_bytes, read_json_object
from voxplain_server.models.model_refused import ModelRefused
from voxplain_server.models.options import Options, parse_options

MAX_INPUTS = 16
MAX_OUTPUTS = 64
MAX_CHANNELS = 4096
MAX_NAME = 128
MAX_AXIS = 8192

_MULTIPLE = re.compile(r"^(?:(\d{1,4})\s*\*\s*[a-z]|[a-z]\s*\*\s*(\d{1,4}))$")


@dataclass(frozen=True, slots=True)
class AxisRule:
    """Which sizes an axis may have.

    Attributes:
        size: the only one, or None.
        multiple: what the size must be a multiple of; 1: anything.
    """

    size: int | None = None
    multiple: int = 1


@dataclass(frozen=True, slots=True)
class InputMetadata:
    """One entry of network_data_format.inputs.

    Attributes:
        name: its key.
        channels: num_channels.
        spatial: one rule for each spatial axis.
        channel_names: channel_def by index; empty where there is none.
        is_patch: is_patch_data: the network reads patches, not cases.
    """

    name: str
    channels: int | None
    spatial: tuple[AxisRule, ...]
    channel_names: tuple[str, ...]
    is_patch: bool


@dataclass(frozen=True, slots=True)
class OutputMetadata:
    """One entry of network_data_format.outputs.

    Attributes:
        name: its key.
        type, format: as the schema has them, for example "probabilities" and "classes".
        channels: num_channels.
        channel_names: channel_def by index; empty where there is none.
    """

    name: str
    type: str
    format: str
    channels: int | None
    channel_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a bundle says about its network.

    Attributes:
        digest: SHA-256 of the bytes that were read.
        version: of the bundle.
        description: what the model is for.
        inputs, outputs: in the order of the file.
        options: the "voxplain" object.
    """

    digest: str
    version: str
    description: str
    inputs: tuple[InputMetadata, ...]
    outputs: tuple[OutputMetadata, ...]
    options: Options


def read_metadata(path: Path) -> Metadata:
    """Read and check metadata.json.

    Raises:
        ModelRefused: METADATA_MISSING, METADATA_TOO_LARGE, METADATA_INVALID or BACKGROUND_UNDECLARED, with what to change.
    """
    data = read_json_bytes(path)
    whole = parse_json_object(data)
    network = whole.object("network_data_format")
    inputs = _entries(network, "inputs", most=MAX_INPUTS)
    outputs = _entries(network, "outputs", most=MAX_OUTPUTS)
    return Metadata(
        digest=hashlib.sha256(data).hexdigest(),
        version=whole.text("version"),
        description=whole.text("description") or whole.text("task"),
        inputs=tuple(_input(name, entry) for name, entry in inputs.items()),
        outputs=tuple(_output(name, entry) for name, entry in outputs.items()),
        options=parse_options(whole.object("voxplain"), tuple(inputs)),
    )


def read_version(path: Path) -> str:
    """The "version" that metadata.json states; empty if it cannot be read."""
    try:
        return read_json_object(path).text("version")
    except ModelRefused:
        return ""


def _entries(network: JsonObject, key: str, *, most: int) -> Mapping[str, JsonObject]:
    values = network.object(key).values
    if not 1 <= len(values) <= most:
        network.refuse(f"must describe 1 to {most} {key}, as the MONAI bundle schema has it", key)
    if not all(0 < len(name) <= MAX_NAME and isinstance(value, dict) for name, value in values.items()):
        network.refuse("must hold objects by name", key)
    return {name: JsonObject(value, f"{network.path}.{key}[{index}]") for index, (name, value) in enumerate(values.items())}


def _input(name: str, entry: JsonObject) -> InputMetadata:
    shape = entry.array("spatial_shape", most=3)
    return InputMetadata(
        name=name,
        channels=entry.integer("num_channels", low=1, high=MAX_CHANNELS),
        spatial=tuple(_axis_rule(entry, size) for size in shape),
        channel_names=_channel_names(entry),
        is_patch=entry.flag("is_patch_data"),
    )


def _output(name: str, entry: JsonObject) -> OutputMetadata:
    return OutputMetadata(
        name=name,
        type=entry.text("type").lower(),
        format=entry.text("format").lower(),
        channels=entry.integer("num_channels", low=1, high=MAX_CHANNELS),
        channel_names=_channel_names(entry),
    )


def _axis_rule(entry: JsonObject, size: Any) -> AxisRule:
    """A size, "*", or an expression; of expressions only "16*n" says more than "anything" without a solver."""
    text = str(size).strip().lower() if isinstance(size, int | str) and not isinstance(size, bool) else ""
    if not 0 < len(text) <= 64:
        entry.refuse('must hold sizes, "*" or expressions such as "16*n"', "spatial_shape")
    if text.isascii() and text.isdigit():
        if not 1 <= int(text) <= MAX_AXIS:
            entry.refuse(f"must hold sizes from 1 to {MAX_AXIS}", "spatial_shape")
        return AxisRule(size=int(text))
    if not re.fullmatch(r"[a-z0-9*+/() -]+", text) or text.startswith("-"):
        entry.refuse('must hold sizes, "*" or expressions such as "16*n"', "spatial_shape")
    match = _MULTIPLE.match(text)
    return AxisRule(multiple=max(1, int(match.group(1) or match.group(2)))) if match else AxisRule()


def _channel_names(entry: JsonObject) -> tuple[str, ...]:
    named = entry.object("channel_def").values
    names = [named.get(str(index)) for index in range(len(named))]
    if not all(isinstance(name, str) and 0 < len(name.strip()) <= MAX_NAME and name.isprintable() for name in names):
        entry.refuse('must name the channels "0", "1", ... in printable text', "channel_def")
    return tuple(str(name).strip() for name in names)
