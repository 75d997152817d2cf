"""Which modality goes where in the graph's inputs: metadata and graph laid side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from voxplain_server.graph.onnx_graph import Graph, Shape
from voxplain_server.models.metadata import AxisRule, InputMetadata, Metadata
from voxplain_server.models.model import InputSpec, ModalitySpec
from voxplain_server.models.model_refused import ModelRefused
from voxplain_server.models.options import InputOptions, modality_token

_DTYPES = {np.dtype(np.float32): "float32", np.dtype(np.float16): "float16"}


@dataclass(frozen=True, slots=True)
class InputLayout:
    """The inputs as the graph and the metadata agree on them.

    Attributes:
        modalities: in the model's order.
        inputs: in the graph's order.
        free_batch: whether every input leaves its batch axis free.
    """

    modalities: tuple[ModalitySpec, ...]
    inputs: tuple[InputSpec, ...]
    free_batch: bool


def lay_out_inputs(graph: Graph, metadata: Metadata) -> InputLayout:
    """Match inputs, channels and spatial axes.

    Raises:
        ModelRefused: INPUT_UNKNOWN, INPUT_RANK, INPUT_TYPE, BATCH_FIXED, CHANNELS_MISMATCH, MODALITY_NAMES, SHAPE_MISMATCH,
            ORIENTATION_RANK, SPACING_RANK, FIT_IMPOSSIBLE, PATCH_DATA or SLICES_WITHOUT_AXIS.
    """
    pairs = _paired(graph, metadata)
    readings = [_InputReading(graph, name, entry, metadata.options.inputs[entry.name]) for name, entry in pairs]
    names = _modality_names(readings)
    modalities: list[ModalitySpec] = []
    inputs: list[InputSpec] = []
    for reading, own in zip(readings, names, strict=True):
        modalities += [reading.modality(name, channel) for channel, name in enumerate(own)]
        inputs.append(reading.spec(own))
    return InputLayout(tuple(modalities), tuple(inputs), all(reading.free_batch for reading in readings))


def _paired(graph: Graph, metadata: Metadata) -> list[tuple[str, InputMetadata]]:
    described = {entry.name: entry for entry in metadata.inputs}
    if len(graph.inputs) == len(described) == 1:
        # MONAI bundles say "image" whatever the exporter called the input.
        return [(graph.inputs[0], metadata.inputs[0])]
    if set(described) != set(graph.inputs):
        message = (
            f"The graph has {len(graph.inputs)} inputs, and network_data_format.inputs does not describe the same ones. "
            "Use the names that the ONNX file has."
        )
        raise ModelRefused("INPUT_UNKNOWN", message)
    return [(name, described[name]) for name in graph.inputs]


class _InputReading:
    """One input of the graph beside its metadata."""

    def __init__(self, graph: Graph, name: str, entry: InputMetadata, options: InputOptions) -> None:
        self._name, self._entry, self._options = name, entry, options
        self._dtype = _DTYPES.get(graph.types.get(name, np.dtype(object)), "")
        if not self._dtype:
            raise ModelRefused("INPUT_TYPE", "An input of the graph is neither float32 nor float16. Export it as float32.")
        dims = _dims(graph.shape(name), options)
        channel_axis = 1 if options.slice_axis is None or options.batch_is_slices else 2
        self.free_batch = not options.batch_is_slices and not isinstance(dims[0], int)
        self._modality_count = self._count(dims[channel_axis])
        self.spatial = self._spatial(dims, channel_axis)
        self._check_options()

    @property
    def own_names(self) -> tuple[str, ...]:
        """Names of the modalities; empty where nothing names them."""
        count, channels = self._modality_count, self._entry.channel_names
        names = self._options.modalities
        if not names and len(channels) == count * self._options.channel_repeat and len(set(channels)) == count:
            names = tuple(dict.fromkeys(modality_token(channel) for channel in channels))
        elif not names and len(channels) == count:
            names = tuple(modality_token(channel) for channel in channels)
        elif not names and not channels and count == 1:
            names = (self.input_token,)
        if len(names) != count:
            message = (
                f"An input has {count} modalities, and channel_def names {len(channels)} channels. Name every modality once, "
                "there or in voxplain.modalities; where a modality is copied into several channels set voxplain.channel_repeat."
            )
            raise ModelRefused("CHANNELS_MISMATCH", message)
        return names

    @property
    def input_token(self) -> str:
        return modality_token(self._entry.name)

    def modality(self, name: str, channel: int) -> ModalitySpec:
        options = self._options
        return ModalitySpec(
            name=name,
            input_name=self._name,
            channel=channel,
            shape=tuple(axis.size for axis in self.spatial),
            orientation=options.orientation,
            spacing_mm=options.spacing_mm,
            spacing_tolerance=options.spacing_tolerance,
            fit=options.fit,
            normalisation=options.normalisation,
            multiples=tuple(axis.multiple for axis in self.spatial),
        )

    def spec(self, modalities: tuple[str, ...]) -> InputSpec:
        return InputSpec(
            name=self._name,
            modalities=modalities,
            slice_axis=self._options.slice_axis,
            repeat=self._options.channel_repeat,
            batch_is_slices=self._options.batch_is_slices,
            dtype=self._dtype,
        )

    def _count(self, size: int | str | None) -> int:
        repeat, stated = self._options.channel_repeat, self._entry.channels
        channels = size if isinstance(size, int) else stated
        if channels is None:
            message = "Neither the graph nor num_channels tells how many channels an input has. State num_channels."
            raise ModelRefused("CHANNELS_MISMATCH", message)
        if channels % repeat or stated not in (None, channels, channels // repeat):
            message = (
                f"The graph reads {channels} channels where num_channels and voxplain.channel_repeat say otherwise. Correct "
                "num_channels, and set channel_repeat only where every modality is copied into that many channels."
            )
            raise ModelRefused("CHANNELS_MISMATCH", message)
        return channels // repeat

    def _spatial(self, dims: Shape, channel_axis: int) -> tuple[AxisRule, ...]:
        """The axes of a volume as it is sent, the slice axis back in its place."""
        axes = [AxisRule(size=dim) if isinstance(dim, int) else AxisRule() for dim in dims[channel_axis + 1 :]]
        stated = list(self._entry.spatial)
        slice_axis = self._options.slice_axis
        if slice_axis is not None:
            slices = dims[0 if self._options.batch_is_slices else 1]
            axes.insert(slice_axis, AxisRule(size=slices) if isinstance(slices, int) else AxisRule())
            if len(stated) == len(axes) - 1:
                stated.insert(slice_axis, AxisRule())
        if stated and len(stated) != len(axes):
            message = f"A volume of this model has {len(axes)} axes, and spatial_shape {len(stated)} sizes. State one for each."
            raise ModelRefused("SHAPE_MISMATCH", message)
        return tuple(map(_merged, axes, stated)) if stated else tuple(axes)

    def _check_options(self) -> None:
        options, rank = self._options, len(self.spatial)
        fit, fixed = options.fit, all(axis.size is not None for axis in self.spatial)
        bounded = fixed or any(axis.multiple > 1 or axis.size is not None for axis in self.spatial)
        if options.orientation is not None and len(options.orientation) != rank:
            raise ModelRefused("ORIENTATION_RANK", f"voxplain.orientation needs {rank} codes, one for each axis of a volume.")
        if options.spacing_mm is not None and len(options.spacing_mm) != rank:
            raise ModelRefused("SPACING_RANK", f"voxplain.spacing.mm needs {rank} numbers, one for each axis of a volume.")
        if fit.resample and options.spacing_mm is None:
            raise ModelRefused("FIT_IMPOSSIBLE", "voxplain.fit.resample has no spacing to go to. State voxplain.spacing.")
        if (fit.resize or fit.crop or fit.pad) and not bounded:
            message = "voxplain.fit resizes, crops or pads to a shape that nobody states. State spatial_shape."
            raise ModelRefused("FIT_IMPOSSIBLE", message)
        if self._entry.is_patch and (not fixed or fit.resize or fit.crop or fit.pad):
            message = (
                "is_patch_data is true: the network reads patches, not cases, and a sliding window is not explained. It is "
                "served only where spatial_shape is fixed and every case is one patch, without resize, crop or pad."
            )
            raise ModelRefused("PATCH_DATA", message)


def _dims(shape: Shape | None, options: InputOptions) -> Shape:
    slices = options.slice_axis is not None
    if options.batch_is_slices and not slices:
        message = "voxplain.batch_is_slices needs voxplain.slice_axis: the axis of the volume that becomes slices."
        raise ModelRefused("SLICES_WITHOUT_AXIS", message)
    ranks = ((4,) if options.batch_is_slices else (5,)) if slices else (4, 5)
    if shape is None or len(shape) not in ranks:
        wanted = "slices, channels, height, width" if options.batch_is_slices else "batch, slices, channels, height, width"
        wanted = wanted if slices else "batch, channels and 2 or 3 spatial axes"
        message = f"An input of the graph does not have the axes {wanted}. Export it so, or state voxplain.slice_axis."
        raise ModelRefused("INPUT_RANK", message)
    if not options.batch_is_slices and isinstance(shape[0], int) and shape[0] != 1:
        message = "The batch axis of an input is fixed, and not at 1. Export the network with a dynamic batch axis, or with 1."
        raise ModelRefused("BATCH_FIXED", message)
    if any(isinstance(size, int) and size < 1 for size in shape):
        raise ModelRefused("INPUT_RANK", "An axis of an input has no size. Export the network again.")
    return shape


def _merged(graph: AxisRule, stated: AxisRule) -> AxisRule:
    if graph.size is None:
        return stated
    if stated.size not in (None, graph.size) or graph.size % stated.multiple:
        message = f"The graph reads {graph.size} voxels along an axis where spatial_shape says otherwise. Correct it."
        raise ModelRefused("SHAPE_MISMATCH", message)
    return replace(graph, multiple=1)


def _modality_names(readings: Sequence[_InputReading]) -> list[tuple[str, ...]]:
    names = [reading.own_names for reading in readings]
    if _doubled(names):
        # Several inputs may all call their one channel "image": then the input's own name tells them apart.
        names = [(reading.input_token,) if len(own) == 1 else own for reading, own in zip(readings, names, strict=True)]
    if _doubled(names) or not all(name for own in names for name in own):
        message = "Two modalities have one name, or one has none. Name each once, in channel_def or voxplain.modalities."
        raise ModelRefused("MODALITY_NAMES", message)
    return names


def _doubled(names: Sequence[tuple[str, ...]]) -> bool:
    return any(count > 1 for count in Counter(name for own in names for name in own).values())
