"""The methods of a command line: `--method occlusion --method big=occlusion --set big.window=21`, or `--method all`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from voxplain.v1 import catalog_pb2, method_pb2

from voxplain_client.command.parameter import set_parameter
from voxplain_client.command.usage_fault import UsageFault
from voxplain_client.method_names import METHOD_NAMES, make_method, method_key

ALL = "all"

_NO_DONORS = "NO_DONORS"
"""The method works on the model, but only in a request that sends background cases."""
_KEY = re.compile(r"[a-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True, eq=False)
class MethodChoice:
    """What shall run, and what cannot.

    Attributes:
        methods: in the order asked, with parameters.
        left_out: methods that `all` does not hold, because this model cannot do them, each with the reason in words.
    """

    methods: tuple[method_pb2.Method, ...]
    left_out: tuple[tuple[str, str], ...]


def choose_methods(
    names: Sequence[str], settings: Iterable[str], model: catalog_pb2.Model, *, with_background: bool = False
) -> MethodChoice:
    """Read `--method` and `--set`.

    Args:
        names: each NAME, KEY=NAME or "all": those that the model can do, without variants of one another.
        settings: each KEY.path=value.
        model: says what "all" is.
        with_background: whether the request holds background cases, for methods that need donors.

    Raises:
        UsageFault: naming the option and what is allowed.
    """
    chosen: dict[str, method_pb2.Method] = {}
    left_out: dict[str, str] = {}
    for text in names:
        if text == ALL:
            for availability in sorted(model.methods, key=_place):
                if availability.variant_of:
                    # It estimates what another method of these estimates; it runs where it is named.
                    continue
                lacks_donors = any(one.code == _NO_DONORS for one in availability.reasons)
                # A server says that it does not work, or that it works with a limit; donors mend both.
                works = with_background if lacks_donors else availability.available
                if not works:
                    remedy = "; give --background MODALITY=FILE" if lacks_donors else ""
                    left_out[availability.method] = reasons_in_words(availability) + remedy
                elif availability.method in METHOD_NAMES:
                    chosen.setdefault(availability.method, make_method(availability.method))
            continue
        method = _read_method(text)
        key = method_key(method)
        if key in chosen and ALL not in names:
            raise UsageFault(f"--method {text}", f"{key} is there twice; give one of them a name: --method NAME={key}")
        chosen[key] = method
    if not chosen:
        raise UsageFault("--method", "no method is left to run; `voxplain describe` says why")
    for text in settings:
        _apply(text, chosen)
    return MethodChoice(methods=tuple(chosen.values()), left_out=tuple(left_out.items()))


def reasons_in_words(availability: catalog_pb2.MethodAvailability) -> str:
    """Why a method does not work on a model, or what limits it."""
    return "; ".join(f"{reason.code}: {reason.description.rstrip('.')}" for reason in availability.reasons)


def _place(availability: catalog_pb2.MethodAvailability) -> int:
    """The contract's order, in which related methods stand together."""
    return METHOD_NAMES.index(availability.method) if availability.method in METHOD_NAMES else len(METHOD_NAMES)


def _read_method(text: str) -> method_pb2.Method:
    key, equals, name = text.rpartition("=")
    if equals and not _KEY.fullmatch(key):
        raise UsageFault(f"--method {text}", "a key has 1 to 64 of the characters a-z, 0-9 and -")
    if name.replace("_", "-") not in METHOD_NAMES:
        raise UsageFault(f"--method {text}", f"allowed are all, {', '.join(METHOD_NAMES)}")
    return make_method(name, key=key)


def _apply(text: str, chosen: dict[str, method_pb2.Method]) -> None:
    path, equals, value = text.partition("=")
    key, *below = path.split(".")
    option = f"--set {path}"
    if not equals or not below:
        raise UsageFault(option, "write --set KEY.parameter=value, for example --set occlusion.window=11")
    method = chosen.get(key) or chosen.get(key.replace("_", "-"))
    if method is None:
        raise UsageFault(option, f"{key} is not among the methods asked for: {', '.join(chosen)}")
    set_parameter(method, below, value, option=option)
