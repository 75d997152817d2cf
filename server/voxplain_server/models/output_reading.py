"""What the model answers and where its score is read: graph and metadata laid side by side."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain_server.graph.onnx_graph import Dimension, Graph, Shape, activation_before_output
from voxplain_server.models.metadata import Metadata, OutputMetadata
from voxplain_server.models.model import Activation, OutputKind, OutputSpec
from voxplain_server.models.model_refused import ModelRefused

_PROBABILITIES = ("probabilities", "probability")
_CLASS_FORMATS = ("classes", "labels")


def read_output(graph: Graph, metadata: Metadata, *, spatial: Sequence[int | None], sliced: bool) -> OutputSpec:
    """Find the kind of the answer, its classes, and the value in front of a final softmax or sigmoid.

    Args:
        graph: the model's graph.
        metadata: the bundle's metadata.
        spatial: sizes of the spatial axes of the first input.
        sliced: whether inputs are stacks of slices, so that no output is a segmentation.

    Raises:
        ModelRefused: OUTPUT_UNKNOWN, OUTPUT_SHAPE, OUTPUT_ACTIVATION or CHANNELS_MISMATCH.
    """
    name, entry = _paired(graph, metadata)
    before, found = activation_before_output(graph, name)
    shape = graph.shape(before) or graph.shape(name)
    channels, dense, has_batch_axis = _answer_axes(shape, entry, [] if sliced else spatial, graph=graph)
    if found == "softmax" and not _is_over_classes(graph, before, rank=len(shape or ())):
        before, found = name, None
        activation = Activation.UNKNOWN
    else:
        activation = _activation(found, entry, metadata.options.output_activation)
    kind = _kind(metadata.options.output_kind, entry, channels=channels, dense=dense, activation=activation)
    return OutputSpec(
        name=name,
        score_name=name if kind is OutputKind.SCALAR else before,
        kind=kind,
        activation=Activation.NONE if kind is OutputKind.SCALAR else activation,
        classes=_classes(entry, kind, channels),
        decision_threshold=metadata.options.decision_threshold,
        has_batch_axis=has_batch_axis,
    )


def _paired(graph: Graph, metadata: Metadata) -> tuple[str, OutputMetadata]:
    by_name = next((entry for entry in metadata.outputs if entry.name in graph.outputs), None)
    if by_name is not None:
        return by_name.name, by_name
    if len(graph.outputs) == 1 and len(metadata.outputs) == 1:
        return graph.outputs[0], metadata.outputs[0]
    message = "No entry of network_data_format.outputs has the name of an output of the graph. Use the ONNX file's name."
    raise ModelRefused("OUTPUT_UNKNOWN", message)


def _answer_axes(
    shape: Shape | None, entry: OutputMetadata, spatial: Sequence[int | None], *, graph: Graph
) -> tuple[int, bool, bool]:
    """How many numbers (for each voxel), whether there is one set for each voxel, and whether axis 0 is a batch."""
    if shape is None:
        if entry.channels is None:
            raise ModelRefused("OUTPUT_SHAPE", "The graph does not tell the shape of its output. State num_channels.")
        return entry.channels, entry.format == "segmentation", True
    if len(shape) >= 3 and spatial and len(shape) == len(spatial) + 2 and not _is_pooled(shape[2:], spatial):
        _check_same_grid(shape[2:], spatial)
        return _channels(shape[1:2], entry), True, True
    if len(shape) >= 2:
        if isinstance(shape[0], int) and shape[0] != 1:
            message = "Axis 0 of the output is neither free nor 1: the graph answers one case several times. Reduce it there."
            raise ModelRefused("OUTPUT_SHAPE", message)
        return _channels(shape[1:], entry), False, True
    free_batch = any(not isinstance(dims[0], int) for value in graph.inputs if (dims := graph.shape(value)))
    if len(shape) == 1 and not isinstance(shape[0], int) and free_batch:
        return _channels((), entry), False, True
    return _channels(shape, entry), False, False


def _is_pooled(answer: Sequence[Dimension], spatial: Sequence[int | None]) -> bool:
    """Whether a classifier merely kept its pooled axes of size 1."""
    return all(size == 1 for size in answer) and any(size != 1 for size in spatial)


def _check_same_grid(answer: Sequence[Dimension], spatial: Sequence[int | None]) -> None:
    for own, given in zip(answer, spatial, strict=True):
        if isinstance(own, int) and given is not None and own != given:
            message = "A segmentation must answer on the grid of its input. Export the network with such an output."
            raise ModelRefused("OUTPUT_SHAPE", message)


def _channels(axes: Sequence[Dimension], entry: OutputMetadata) -> int:
    numbers = 1
    for size in axes:
        if not isinstance(size, int):
            if entry.channels is None or len(axes) > 1:
                message = "The graph does not tell how many numbers it answers. Export it with a fixed class axis."
                raise ModelRefused("OUTPUT_SHAPE", message)
            size = entry.channels
        numbers *= size
    if numbers < 1 or entry.channels not in (None, numbers):
        message = f"The graph answers {numbers} numbers where num_channels of the output says otherwise. Correct num_channels."
        raise ModelRefused("CHANNELS_MISMATCH", message)
    return numbers


def _is_over_classes(graph: Graph, before: str, *, rank: int) -> bool:
    """Whether the softmax normalises over the class axis; over any other it is part of the answer."""
    if rank > 2 and graph.opset < 13:
        return False  # Until opset 13 a softmax flattened everything behind its axis.
    axes = {int(node.attributes.get("axis", -1)) for node in graph.consumers(before) if node.op == "Softmax"}
    class_axis = 1 if rank >= 2 else 0
    return rank == 0 or {axis % rank for axis in axes} == {class_axis}


def _activation(found: str | None, entry: OutputMetadata, stated: str | None) -> Activation:
    if found is not None:
        if stated not in (None, found):
            message = f"The graph ends in a {found}, and voxplain.output.activation says otherwise. Correct it, or take it out."
            raise ModelRefused("OUTPUT_ACTIVATION", message)
        return Activation(found)
    if entry.type in _PROBABILITIES and stated != "none":
        return Activation.UNKNOWN
    return Activation(stated or "none")


def _kind(stated: str | None, entry: OutputMetadata, *, channels: int, dense: bool, activation: Activation) -> OutputKind:
    if dense:
        kind = OutputKind.SEGMENTATION
    elif channels > 1:
        kind = OutputKind.CLASSES
    elif stated is not None:
        kind = OutputKind(stated)
    else:
        # A lone number without a class is a measurement: nothing may be called its probability.
        two_names = len(entry.channel_names) == 2
        sigmoid = activation is not Activation.NONE or two_names or entry.format in _CLASS_FORMATS
        kind = OutputKind.SIGMOID if sigmoid else OutputKind.SCALAR
    lone = kind in (OutputKind.SIGMOID, OutputKind.SCALAR)
    if stated not in (None, kind.value) or (not dense and lone != (channels == 1)):
        message = (
            f"The graph answers {channels} numbers{' for each voxel' if dense else ''}, which is not the voxplain.output.kind "
            "stated. Correct it, or take it out."
        )
        raise ModelRefused("OUTPUT_SHAPE", message)
    if lone and activation is Activation.SOFTMAX:
        raise ModelRefused("OUTPUT_SHAPE", "A softmax over one number is always 1. Export with a sigmoid, or with two classes.")
    return kind


def _classes(entry: OutputMetadata, kind: OutputKind, channels: int) -> tuple[str, ...]:
    names = entry.channel_names
    if kind is OutputKind.SCALAR:
        return ()
    if channels == 1 and len(names) == 1:
        names = (f"not {names[0]}", names[0])
    wanted = 2 if channels == 1 else channels
    if not names:
        names = tuple(f"class-{index}" for index in range(wanted))
    if len(names) != wanted or len(set(names)) != wanted:
        message = f"channel_def of the output must name {wanted} classes, each once."
        raise ModelRefused("CHANNELS_MISMATCH", message)
    return names
