"""The optional "voxplain" object of metadata.json: what the MONAI schema has no word for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from voxplain_server.models.json_object import JsonObject, is_number
from voxplain_server.models.model import Fit
from voxplain_server.models.model_refused import ModelRefused
from voxplain_server.models.remote_options import RemoteOptions, parse_remote

OPTION_KEYS = (
    "background_cases",
    "batch_is_slices",
    "cam_layers",
    "channel_repeat",
    "decision_threshold",
    "fit",
    "grouping_modality",
    "modalities",
    "normalisation",
    "orientation",
    "output",
    "remote",
    "slice_axis",
    "spacing",
)
NORMALISATIONS = ("none", "nonzero-zscore")
OUTPUT_KINDS = ("classes", "sigmoid", "scalar", "segmentation")
ACTIVATIONS = ("none", "softmax", "sigmoid")
DECLARATIONS = ("synthetic", "de-identified")
MAX_BACKGROUND_CASES = 64
MAX_CAM_LAYERS = 64
MAX_MODALITIES = 256
DEFAULT_SPACING_TOLERANCE = 0.01

_OPPOSITE = {"R": "R", "L": "R", "A": "A", "P": "A", "S": "S", "I": "S"}


@dataclass(frozen=True, slots=True)
class InputOptions:
    """What may be stated for each input, by its name, or once for all.

    Attributes:
        orientation: axis codes of the model's grid.
        spacing_mm, spacing_tolerance: spacing of the model's grid and the allowed relative difference.
        fit: what may be done to a volume.
        normalisation: one of NORMALISATIONS.
        channel_repeat: channels that each modality is copied into.
        slice_axis: axis of the volume that becomes slices.
        batch_is_slices: whether the slices use up the batch axis.
        modalities: names in the order of channels; empty: channel_def names them.
    """

    orientation: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    spacing_tolerance: float = DEFAULT_SPACING_TOLERANCE
    fit: Fit = field(default_factory=Fit)
    normalisation: str = "none"
    channel_repeat: int = 1
    slice_axis: int | None = None
    batch_is_slices: bool = False
    modalities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """The whole object.

    Attributes:
        inputs: for each input of the metadata, by its name.
        cam_layers: ONNX values that Grad-CAM reads.
        grouping_modality: on whose volume a shared SLIC is computed.
        decision_threshold: probability above which the bundle decides for the class.
        output_kind, output_activation: of OUTPUT_KINDS and ACTIVATIONS; None: found in the graph.
        background_cases: one mapping from modality to a file below the version's folder for each case.
        remote: the model that another server holds; None: the bundle holds a file.
    """

    inputs: Mapping[str, InputOptions]
    cam_layers: tuple[str, ...] = ()
    grouping_modality: str | None = None
    decision_threshold: float | None = None
    output_kind: str | None = None
    output_activation: str | None = None
    background_cases: tuple[Mapping[str, str], ...] = ()
    remote: RemoteOptions | None = None


def parse_options(whole: JsonObject, inputs: Sequence[str]) -> Options:
    """Read the "voxplain" object.

    Args:
        whole: the object; empty where there is none.
        inputs: names of the inputs in network_data_format.

    Raises:
        ModelRefused: METADATA_INVALID, with the key at fault; BACKGROUND_UNDECLARED.
    """
    whole.only(OPTION_KEYS)
    output = whole.object("output")
    output.only(("kind", "activation"))
    return Options(
        inputs={name: _input_options(whole, name, inputs) for name in inputs},
        cam_layers=_texts(whole, "cam_layers", most=MAX_CAM_LAYERS),
        grouping_modality=modality_token(whole.text("grouping_modality")) or None,
        decision_threshold=whole.number("decision_threshold", above=0.0, below=1.0),
        output_kind=output.choice("kind", OUTPUT_KINDS),
        output_activation=output.choice("activation", ACTIVATIONS),
        background_cases=_background_cases(whole),
        remote=parse_remote(whole),
    )


def modality_token(text: str) -> str:
    """A modality's name as clients write it: lower case, of [a-z0-9_-], at most 64 characters; empty if nothing is left."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.strip().lower()).strip("-")[:64]


def _input_options(whole: JsonObject, name: str, inputs: Sequence[str]) -> InputOptions:
    def own(key: str) -> JsonObject:
        """The document as if what is said of this input were said once for all."""
        value = whole.values.get(key)
        by_input = isinstance(value, dict) and value and set(value) <= set(inputs)
        return JsonObject({key: value.get(name)} if by_input and isinstance(value, dict) else {key: value}, whole.path)

    spacing = own("spacing").object("spacing")
    spacing.only(("mm", "tolerance"))
    fit = own("fit").object("fit")
    fit.only(("resample", "resize", "pad", "crop"))
    return InputOptions(
        orientation=_orientation(own("orientation")),
        spacing_mm=_spacing(spacing) if spacing.values else None,
        spacing_tolerance=spacing.number("tolerance", above=0.0, below=1.0) or DEFAULT_SPACING_TOLERANCE,
        fit=Fit(**{part: fit.flag(part) for part in ("resample", "resize", "crop", "pad")}),
        normalisation=own("normalisation").choice("normalisation", NORMALISATIONS) or "none",
        channel_repeat=own("channel_repeat").integer("channel_repeat", low=1, high=64) or 1,
        slice_axis=own("slice_axis").integer("slice_axis", low=0, high=2),
        batch_is_slices=own("batch_is_slices").flag("batch_is_slices"),
        modalities=_modalities(own("modalities")),
    )


def _orientation(options: JsonObject) -> str | None:
    codes = options.text("orientation").upper()
    if not codes:
        return None
    if len(codes) not in (2, 3) or len({_OPPOSITE.get(code, "") for code in codes} - {""}) != len(codes):
        options.refuse('must be axis codes, one for each axis and each direction once, for example "RAS"', "orientation")
    return codes


def _spacing(spacing: JsonObject) -> tuple[float, ...]:
    values = spacing.array("mm", most=3)
    if len(values) not in (2, 3) or not all(is_number(value) and 0.0 < value < 1e4 for value in values):
        spacing.refuse("must be 2 or 3 numbers above 0, the spacing along each axis in millimetres", "mm")
    return tuple(float(value) for value in values)


def _modalities(options: JsonObject) -> tuple[str, ...]:
    value = options.values.get("modalities")
    names = [value] if isinstance(value, str) else options.array("modalities", most=MAX_MODALITIES)
    tokens = tuple(modality_token(name) if isinstance(name, str) else "" for name in names)
    if not all(tokens):
        options.refuse("must be names of letters and digits, by input", "modalities")
    return tokens


def _texts(options: JsonObject, key: str, *, most: int) -> tuple[str, ...]:
    values = options.array(key, most=most)
    if not all(isinstance(value, str) and value for value in values):
        options.refuse("must be a list of names", key)
    return tuple(values)


def _background_cases(whole: JsonObject) -> tuple[Mapping[str, str], ...]:
    options = whole.object("background_cases")
    options.only(("declaration", "cases"))
    cases = options.array("cases", most=MAX_BACKGROUND_CASES)
    if not cases:
        return ()
    if options.choice("declaration", DECLARATIONS) is None:
        message = (
            'metadata.json: voxplain.background_cases.declaration must say "synthetic" or "de-identified": volumes of '
            "patients who can be known do not belong into a bundle."
        )
        raise ModelRefused("BACKGROUND_UNDECLARED", message)
    return tuple(_background_case(options, case) for case in cases)


def _background_case(options: JsonObject, case: Any) -> Mapping[str, str]:
    if not isinstance(case, dict) or not case or not all(isinstance(path, str) and path for path in case.values()):
        options.refuse("must be objects from modality to a NIfTI file below the version's folder", "cases")
    return {modality_token(name): path for name, path in case.items()}
