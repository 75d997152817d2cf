"""Set one parameter of a method by its path, as far as the contract knows it: `fill.gaussian_blur.sigma_voxels` = `2`.

The contract's descriptors say what there is, so a new method needs nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from voxplain.v1 import method_pb2

from voxplain_client.command.usage_fault import UsageFault
from voxplain_client.method_names import method_name

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_WHOLE_RANGES: dict[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


def set_parameter(method: method_pb2.Method, path: Sequence[str], text: str, *, option: str) -> None:
    """Set one parameter.

    Several values of one parameter are separated by commas. A message with choices takes the name of its choice (`fill=zero`,
    `grouping=whole-modality`), and a path through a choice chooses it. Hyphens and underscores are the same.

    Args:
        method: with its method chosen; changed in place.
        path: below the method's own message, at least one part.
        text: what the user wrote behind `=`.
        option: how the user wrote it, for errors.

    Raises:
        UsageFault: no such parameter, or not such a value.
    """
    message: Message = getattr(method, method_name(method).replace("-", "_"))
    for part in path[:-1]:
        field = _field(message, part, option=option)
        if field.message_type is None:
            raise UsageFault(option, f"{_kebab(field.name)} is a value and has nothing below it")
        message = _enter(message, field, option=option)
    field = _field(message, path[-1], option=option)
    if field.message_type is not None:
        _choose(_enter(message, field, option=option), text, option=option)
    elif field.is_repeated:
        values = getattr(message, field.name)
        del values[:]
        values.extend(_value(field, part.strip(), option=option) for part in text.split(","))
    else:
        setattr(message, field.name, _value(field, text.strip(), option=option))


def list_parameters(descriptor: Descriptor) -> list[str]:
    """All that `--set` takes below a message, for example ["window", "stride", "fill", "fill.gaussian-blur.sigma-voxels"]."""
    found: list[str] = []
    for field in descriptor.fields:
        name = _kebab(field.name)
        if field.containing_oneof is None or _is_optional(field):
            found.append(name)
        if field.message_type is not None:
            found += [f"{name}.{below}" for below in list_parameters(field.message_type)]
    return found


def _field(message: Message, part: str, *, option: str) -> Any:
    name = part.replace("-", "_").lower()
    for field in message.DESCRIPTOR.fields:
        if field.name == name:
            return field
    known = ", ".join(_kebab(field.name) for field in message.DESCRIPTOR.fields) or "none: it has no parameters"
    raise UsageFault(option, f"unknown parameter; here are {known}")


def _enter(message: Message, field: Any, *, option: str) -> Message:
    group = field.containing_oneof
    chosen = message.WhichOneof(group.name) if group is not None else None
    if chosen is not None and chosen != field.name:
        raise UsageFault(option, f"{_kebab(chosen)} was chosen before, and only one can be")
    below: Message = getattr(message, field.name)
    below.SetInParent()
    return below


def _choose(message: Message, text: str, *, option: str) -> None:
    choices = [field for field in message.DESCRIPTOR.fields if field.containing_oneof is not None and not _is_optional(field)]
    if not choices:
        known = ", ".join(_kebab(field.name) for field in message.DESCRIPTOR.fields)
        raise UsageFault(option, f"this is a group; set one of {known}, written behind a point")
    name = text.strip().replace("-", "_").lower()
    for field in choices:
        if field.name == name:
            _enter(message, field, option=option)
            return
    raise UsageFault(option, f"allowed are {', '.join(_kebab(field.name) for field in choices)}")


def _value(field: Any, text: str, *, option: str) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return _boolean(text, option=option)
    if kind == FieldDescriptor.CPPTYPE_ENUM and field.enum_type is not None:
        return _enum_number(field.enum_type, text, option=option)
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return _number(text, option=option)
    if kind in _WHOLE_RANGES:
        return _whole_number(text, _WHOLE_RANGES[kind], option=option)
    return text


def _boolean(text: str, *, option: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise UsageFault(option, "allowed are true, false")


def _number(text: str, *, option: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageFault(option, "a finite number is wanted")
    return number


def _whole_number(text: str, bounds: tuple[int, int], *, option: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise UsageFault(option, "a whole number is wanted") from None
    if not bounds[0] <= number <= bounds[1]:
        raise UsageFault(option, f"a whole number from {bounds[0]} to {bounds[1]} is wanted")
    return number


def _enum_number(enum: EnumDescriptor, text: str, *, option: str) -> int:
    # MaxPoolRule.MAX_POOL_RULE_COMPLETE is written "complete".
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    short = {value.name.removeprefix(prefix).lower().replace("_", "-"): value.number for value in enum.values[1:]}
    number = short.get(text.lower().replace("_", "-").removeprefix(prefix.lower().replace("_", "-")))
    if number is None:
        raise UsageFault(option, f"allowed are {', '.join(short)}")
    return number


def _is_optional(field: Any) -> bool:
    # proto3 `optional` makes a oneof of one field, named after it.
    group = field.containing_oneof
    return group is not None and group.name == f"_{field.name}"


def _kebab(name: str) -> str:
    return name.replace("_", "-")
