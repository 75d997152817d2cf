"""`--target NAME|INDEX|contrast:A,B`."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain.v1 import explain_pb2

from voxplain_client.command.usage_fault import UsageFault
from voxplain_client.targets import contrast, make_target, predicted_class

_CONTRAST = "contrast:"


def read_target(text: str | None, classes: Sequence[str]) -> explain_pb2.Target | None:
    """Read a target. A text that is a class's name is that name, even where it looks like a number.

    Raises:
        UsageFault: naming the classes that there are.
    """
    if text is None:
        return None
    if text.startswith(_CONTRAST):
        this, comma, other = text.removeprefix(_CONTRAST).partition(",")
        if not comma:
            raise UsageFault("--target", "write contrast:A,B for the score of A minus the score of B")
        return contrast(_class(this.strip(), classes), _class(other.strip(), classes))
    if text == "predicted" and text not in classes:
        return predicted_class()
    return make_target(_class(text, classes))


def _class(text: str, classes: Sequence[str]) -> str | int:
    if text in classes:
        return text
    if text.isascii() and text.isdigit() and (not classes or int(text) < len(classes)):
        return int(text)
    known = f"classes are {', '.join(classes)}" if classes else "the model has no classes; leave --target out"
    raise UsageFault("--target", known)
