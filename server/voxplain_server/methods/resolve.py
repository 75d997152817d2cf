"""A method as a client asked for it becomes a method with every parameter filled in and checked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from google.protobuf.message import Message
from voxplain.v1 import method_pb2

from voxplain_server.methods import all_methods
from voxplain_server.methods.adaptive_defaults import AdaptiveDefaults
from voxplain_server.methods.method import Method, Violation
from voxplain_server.methods.parameter_defaults import default_grouping_modality, defaults_of
from voxplain_server.methods.plan import MAX_EVALUATIONS
from voxplain_server.methods.shared_parameters import baseline_violations, grouping_violations
from voxplain_server.models.model import Model

_KEY = re.compile(r"[a-z0-9-]{1,64}")


def resolve_method(
    method: method_pb2.Method,
    model: Model,
    *,
    shapes: Sequence[tuple[int, ...]] | None = None,
    one_grid: bool | None = None,
) -> tuple[method_pb2.Method, list[Violation]]:
    """Fill in the key and every parameter, and tell what cannot be.

    Unset fields take the method's default for this model; a baseline or a grouping that the client set in part takes the
    defaults of its own kind. An enum's zero value means unset.

    Args:
        method: what the client sent; it is not changed.
        model: the model that will be explained.
        shapes: voxels of each modality on the model's grid, in the model's order, where the tensors have told more than
            the bundle states; None: what the bundle states.
        one_grid: whether the tensors' geometries show that all modalities lie on one grid; None: not known. It decides
            whether a late-fusion model gets the shared grouping that a method prefers.

    Returns:
        The resolved method, and violations whose fields are paths below the Method message (`occlusion.window`, `key`); it
        is fit to run only where there are none.
    """
    if shapes is not None:
        modalities = tuple(replace(modality, shape=shape) for modality, shape in zip(model.modalities, shapes, strict=True))
        model = replace(model, modalities=modalities)
    resolved = method_pb2.Method()
    resolved.CopyFrom(method)
    which = method.WhichOneof("method")
    if which is None:
        return resolved, [Violation("method", "METHOD_MISSING", "name the method with its message, for example occlusion {}")]
    resolved.key = method.key or which.replace("_", "-")
    violations = []
    if not _KEY.fullmatch(resolved.key):
        violations.append(Violation("key", "KEY_INVALID", "use 1 to 64 characters of a-z, 0-9 and hyphen"))
    implementation = all_methods().get(which.replace("_", "-"))
    if implementation is None:
        violations.append(Violation(which, "UNKNOWN_METHOD", "this server does not have the method; see ListMethods"))
        return resolved, violations
    params: Message = getattr(resolved, which)
    defaults = _defaults(implementation, model, one_grid=one_grid)
    if isinstance(implementation, AdaptiveDefaults):
        implementation.adapt_defaults(defaults, params)
    _fill(params, defaults, model)
    found = [*_generic_violations(params, model), *_own_violations(implementation, params, model)]
    by_field: dict[str, Violation] = {}
    for violation in found:
        by_field.setdefault(violation.field, violation)
    violations.extend(replace(v, field=f"{which}.{v.field}" if v.field else which) for v in by_field.values())
    return resolved, violations


def _defaults(method: Method, model: Model, *, one_grid: bool | None) -> Message:
    defaults = method.defaults(model)
    grouping = getattr(defaults, "grouping", None)
    if one_grid and isinstance(grouping, method_pb2.FeatureGrouping):
        preferred = method.defaults(None)
        grouping.shared = preferred.grouping.shared  # type: ignore[attr-defined]
        if grouping.shared:
            grouping.grouping_modality = default_grouping_modality(model)
    return defaults


def _fill(message: Message, defaults: Message, model: Model) -> None:
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated:
            if not len(getattr(message, field.name)):
                getattr(message, field.name).extend(getattr(defaults, field.name))
        elif field.containing_oneof is not None and len(field.containing_oneof.fields) > 1:
            if message.HasField(field.name) and field.message_type is not None:
                member: Message = getattr(message, field.name)
                _fill(member, defaults_of(member), model)
        elif not message.HasField(field.name) or (field.enum_type is not None and getattr(message, field.name) == 0):
            _copy_field(message, defaults, field.name)
        elif field.message_type is method_pb2.FeatureGrouping.DESCRIPTOR:
            _fill_grouping(getattr(message, field.name), getattr(defaults, field.name), model)
        elif field.message_type is not None:
            _fill(getattr(message, field.name), getattr(defaults, field.name), model)


def _fill_grouping(grouping: method_pb2.FeatureGrouping, defaults: method_pb2.FeatureGrouping, model: Model) -> None:
    says_something = grouping.HasField("shared") or grouping.HasField("grouping_modality")
    if grouping.WhichOneof("kind") is None and says_something:
        grouping.slic.CopyFrom(defaults.slic)
    kind = grouping.WhichOneof("kind")
    if kind is not None:
        member = getattr(grouping, kind)
        _fill(member, defaults_of(member), model)
    if not grouping.HasField("shared"):
        grouping.shared = defaults.shared and kind != "whole_modality"
    if kind == "slic" and grouping.shared and not grouping.HasField("grouping_modality"):
        grouping.grouping_modality = default_grouping_modality(model)


def _copy_field(message: Message, defaults: Message, name: str) -> None:
    if not defaults.HasField(name):
        return
    value = getattr(defaults, name)
    if isinstance(value, Message):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)


def _generic_violations(message: Message, model: Model, path: str = "") -> Iterator[Violation]:
    for field, value in message.ListFields():
        name = f"{path}{field.name}"
        values = value if field.is_repeated else [value]
        if field.message_type is method_pb2.Baseline.DESCRIPTOR:
            yield from baseline_violations(value, name)
        elif field.message_type is method_pb2.FeatureGrouping.DESCRIPTOR:
            yield from grouping_violations(value, model, name)
        elif field.enum_type is not None and any(each not in field.enum_type.values_by_number for each in values):
            yield Violation(name, "UNKNOWN_ENUM_VALUE", "use one of the values that the contract names")
        elif any(isinstance(each, float) and not math.isfinite(each) for each in values):
            yield Violation(name, "NOT_FINITE", "must be a finite number")
        if field.message_type is not None and not field.is_repeated:
            yield from _generic_violations(value, model, f"{name}.")


def _own_violations(method: Method, params: Message, model: Model) -> Iterator[Violation]:
    own = list(method.violations(params, model))
    yield from own
    shapes = [tuple(n for n in modality.shape if n is not None) for modality in model.modalities]
    known = all(len(shape) == len(m.shape) for shape, m in zip(shapes, model.modalities, strict=True))
    countable = known and not own and not list(_generic_violations(params, model))
    if countable and method.count_evaluations(params, shapes) > MAX_EVALUATIONS:
        yield Violation("", "TOO_MANY_EVALUATIONS", f"ask for at most {MAX_EVALUATIONS:,} evaluations")
