"""JSON read with suspicion: bounded, without doubled keys, every value checked where it is taken."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from voxplain_server.models.model_refused import ModelRefused

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_TEXT = 4096

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class JsonObject:
    """One object of a JSON document.

    Attributes:
        values: its members.
        path: where it stands, in the words of the schema; it never holds text of the document.
    """

    values: Mapping[str, Any]
    path: str

    def only(self, keys: Collection[str]) -> None:
        """Refuse members that are not in `keys`."""
        if not set(self.values) <= set(keys):
            self.refuse(f"holds a key that is not known; the known keys are {', '.join(sorted(keys))}")

    def has(self, key: str) -> bool:
        """Whether a member is there and not null."""
        return self.values.get(key) is not None

    def text(self, key: str, *, default: str = "") -> str:
        """A string of at most 4096 characters."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            self.refuse(f"must be text of at most {MAX_TEXT} characters", key)
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str | None:
        """One of some words, or None where it is not stated."""
        if not self.has(key):
            return None
        if self.values[key] not in choices:
            self.refuse(f"must be one of {', '.join(choices)}", key)
        return str(self.values[key])

    def flag(self, key: str) -> bool:
        """true or false; false where it is not stated."""
        value = self.values.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            self.refuse("must be true or false", key)
        return value

    def integer(self, key: str, *, low: int, high: int) -> int | None:
        """A whole number within bounds, or None where it is not stated."""
        if not self.has(key):
            return None
        value = self.values[key]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.refuse(f"must be a whole number from {low} to {high}", key)
        return value

    def number(self, key: str, *, above: float, below: float) -> float | None:
        """A number strictly between bounds, or None where it is not stated."""
        if not self.has(key):
            return None
        value = self.values[key]
        if not is_number(value) or not above < value < below:
            self.refuse(f"must be a number above {above:g} and below {below:g}", key)
        return float(value)

    def array(self, key: str, *, most: int) -> Sequence[Any]:
        """A list of at most `most` items; empty where it is not stated."""
        value = self.values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > most:
            self.refuse(f"must be a list of at most {most} items", key)
        return value

    def object(self, key: str) -> JsonObject:
        """An object; empty where it is not stated."""
        value = self.values.get(key)
        if value is None:
            return JsonObject({}, self._below(key))
        if not isinstance(value, dict):
            self.refuse("must be an object", key)
        return JsonObject(value, self._below(key))

    def refuse(self, what: str, key: str = "") -> NoReturn:
        """Refuse the bundle for this object or one of its members."""
        place = self._below(key) if key else self.path
        raise ModelRefused("METADATA_INVALID", f"metadata.json: {place or 'the document'} {what}.")

    def _below(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def is_number(value: object) -> bool:
    """Whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_json_object(path: Path) -> JsonObject:
    """Read a JSON file that holds one object.

    Raises:
        ModelRefused: METADATA_MISSING, METADATA_TOO_LARGE (1 MiB, 32 levels) or METADATA_INVALID.
    """
    return parse_json_object(read_json_bytes(path))


def read_json_bytes(path: Path) -> bytes:
    """The bytes of a JSON file.

    Raises:
        ModelRefused: METADATA_MISSING, or METADATA_TOO_LARGE (1 MiB).
    """
    message = "metadata.json cannot be read. Put one beside model.onnx, or into configs/ in the MONAI layout."
    try:
        # O_NONBLOCK: opening a named pipe would else wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        raise ModelRefused("METADATA_MISSING", message) from None
    with os.fdopen(descriptor, "rb") as file:
        try:
            data = file.read(MAX_BYTES + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
        except OSError:
            data = None
    if data is None:
        raise ModelRefused("METADATA_MISSING", message)
    if len(data) > MAX_BYTES:
        raise ModelRefused("METADATA_TOO_LARGE", "metadata.json is larger than 1 MiB. Shorten it.")
    return data


def parse_json_object(data: bytes) -> JsonObject:
    """The one object of a JSON document.

    Raises:
        ModelRefused: METADATA_TOO_LARGE (32 levels) or METADATA_INVALID.
    """
    try:
        text = data.decode("utf-8-sig")
        _refuse_depth(text)
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        message = "metadata.json is not JSON in UTF-8 with every key once and finite numbers. Check it with a JSON linter."
        raise ModelRefused("METADATA_INVALID", message) from None
    if not isinstance(value, dict):
        raise ModelRefused("METADATA_INVALID", "metadata.json must hold one object.")
    return JsonObject(value, "")


def _refuse_depth(text: str) -> None:
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        token = match.group()
        depth += (token in "[{") - (token in "]}")
        if depth > MAX_DEPTH:
            raise ModelRefused("METADATA_TOO_LARGE", f"metadata.json nests deeper than {MAX_DEPTH} levels. Flatten it.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(_: str) -> NoReturn:
    raise ValueError("not a finite number")
