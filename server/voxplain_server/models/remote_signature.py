"""What a remote server tells about a model, as the graph that a file would show: inputs and outputs, and nothing between.

Protocol: Open Inference Protocol v2 over gRPC, ModelMetadata. Servers may tell nothing of a custom model: then metadata.json
alone says what goes in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc
import numpy as np
from voxplain.inference import open_inference_pb2, open_inference_pb2_grpc

from voxplain_server.graph.onnx_graph import Dimension, Graph, Shape
from voxplain_server.models.metadata import InputMetadata, Metadata, OutputMetadata
from voxplain_server.models.model_refused import ModelRefused
from voxplain_server.models.options import InputOptions
from voxplain_server.models.remote_options import RemoteOptions

DATATYPES: Mapping[str, str] = {"FP32": "float32", "FP16": "float16", "FP64": "float64"}
METADATA_SECONDS = 10.0
MAX_TENSORS, MAX_AXES = 64, 8
_OPSET = 18


@dataclass(frozen=True, slots=True, eq=False)
class RemoteSignature:
    """What goes in and what comes out.

    Attributes:
        graph: under our names, without nodes.
        inputs: names of the remote tensors by ours.
        output: name of the remote tensor that is explained.
        fixed_batch: cases that every request must hold; None: any number, or one.
        reported: SHA-256 of what the server told.
    """

    graph: Graph
    inputs: Mapping[str, str]
    output: str
    fixed_batch: int | None
    reported: str


def ask_signature(channel: grpc.Channel, metadata: Metadata, remote: RemoteOptions) -> RemoteSignature:
    """Ask the server, and lay its answer beside metadata.json.

    Raises:
        ModelRefused: REMOTE_UNAVAILABLE, REMOTE_MODEL_UNKNOWN, REMOTE_METADATA, INPUT_TYPE.
    """
    return _signature(ask_metadata(channel, remote.model, remote.version), metadata, remote)


def ask_metadata(channel: grpc.Channel, model: str, version: str) -> open_inference_pb2.ModelMetadataResponse:
    """What the server tells about a model; an empty answer from one that does not tell such things.

    Raises:
        ModelRefused: REMOTE_UNAVAILABLE or REMOTE_MODEL_UNKNOWN.
    """
    stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    request = open_inference_pb2.ModelMetadataRequest(name=model, version=version)
    try:
        return stub.ModelMetadata(request, timeout=METADATA_SECONDS)
    except grpc.RpcError as fault:
        code = fault.code()
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return open_inference_pb2.ModelMetadataResponse()
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        told = "The inference server that the bundle names does not answer. See that it runs, and that its TLS is as stated."
        raise ModelRefused("REMOTE_UNAVAILABLE", told)
    # Its own words may quote anything; the name of the code is one of seventeen.
    told = f"The inference server tells nothing of the model that the bundle names: {code.name}. Correct voxplain.remote.model."
    raise ModelRefused("REMOTE_MODEL_UNKNOWN", told)


def digest_reported(told: open_inference_pb2.ModelMetadataResponse) -> str:
    """SHA-256, in lower-case hexadecimal, of what a server tells; equal answers in another encoding are equal."""
    tensors = [[[each.name, each.datatype, list(each.shape)] for each in side] for side in (told.inputs, told.outputs)]
    whole = json.dumps([told.name, list(told.versions), told.platform, *tensors], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(whole.encode()).hexdigest()


def _signature(told: open_inference_pb2.ModelMetadataResponse, metadata: Metadata, remote: RemoteOptions) -> RemoteSignature:
    if len(told.inputs) > MAX_TENSORS or len(told.outputs) > MAX_TENSORS:
        raise ModelRefused("REMOTE_METADATA", f"The remote model has more than {MAX_TENSORS} tensors on one side.")
    names = {entry.name: remote.inputs.get(entry.name) or entry.name for entry in metadata.inputs}
    if not set(remote.inputs) <= set(names):
        told_so = "voxplain.remote.inputs names an input that network_data_format.inputs does not describe. Use its names."
        raise ModelRefused("INPUT_UNKNOWN", told_so)
    reported = {each.name: each for each in told.inputs}
    if len(names) == len(reported) == 1 and not remote.inputs:
        # One goes to the other, whatever either is called.
        names = dict.fromkeys(names, next(iter(reported)))
    if reported and set(reported) != set(names.values()):
        told_so = (
            f"The remote model reads {len(reported)} tensors, and they are not those that the bundle maps its inputs to. Name "
            "each in voxplain.remote.inputs."
        )
        raise ModelRefused("INPUT_UNKNOWN", told_so)
    shapes: dict[str, Shape] = {}
    types: dict[str, np.dtype[np.generic]] = {}
    batches: set[int] = set()
    for entry in metadata.inputs:
        options, own = metadata.options.inputs[entry.name], reported.get(names[entry.name])
        shape = _stated_input(entry, options) if own is None or not own.shape else _reported_shape(own.shape)
        if not options.batch_is_slices:
            shape, batch = _freed(shape, most=remote.batch_size)
            batches |= batch
        shapes[entry.name] = shape
        types[entry.name] = _type(own.datatype if own is not None else "FP32")
    if len(batches) > 1:
        raise ModelRefused("BATCH_FIXED", "The inputs of the remote model are fixed at different batch sizes.")
    output, entry_out = _output(told, metadata, remote)
    shape_out = _output_shape(told, output, entry_out, metadata)
    fixed = next(iter(batches), None)
    if fixed is not None and shape_out and shape_out[0] == fixed:
        shape_out = ("batch", *shape_out[1:])
    if "batch" not in {shape[0] for shape in shapes.values()} and shape_out and shape_out[0] == "batch":
        shape_out = (1, *shape_out[1:])
    graph = Graph(
        inputs=tuple(names),
        outputs=(entry_out.name,),
        nodes=(),
        initializers={},
        shapes=shapes | {entry_out.name: shape_out},
        types=types,
        aliases={},
        opset=_OPSET,
    )
    return RemoteSignature(graph, names, output, fixed, digest_reported(told))


def _freed(shape: Shape, *, most: int | None) -> tuple[Shape, set[int]]:
    """A fixed batch of several cases is one that we fill; one that may hold one case only is fixed at 1."""
    if most == 1 and shape and not isinstance(shape[0], int):
        return (1, *shape[1:]), set()
    if shape and isinstance(shape[0], int) and shape[0] > 1:
        return ("batch", *shape[1:]), {shape[0]}
    return shape, set()


def _reported_shape(shape: Sequence[int]) -> Shape:
    if len(shape) > MAX_AXES:
        raise ModelRefused("REMOTE_METADATA", f"A tensor of the remote model has more than {MAX_AXES} axes.")
    free: list[Dimension] = [size if size >= 0 else f"axis-{axis}" for axis, size in enumerate(shape)]
    if free and not isinstance(free[0], int):
        free[0] = "batch"
    return tuple(free)


def _stated_input(entry: InputMetadata, options: InputOptions) -> Shape:
    """The shape of an input that the server does not tell, from metadata.json."""
    if entry.channels is None or not entry.spatial:
        told = "The remote server does not tell the shape of an input: state num_channels and spatial_shape for each."
        raise ModelRefused("REMOTE_METADATA", told)
    spatial: list[Dimension] = [axis.size for axis in entry.spatial]
    channels = entry.channels
    if options.modalities and len(options.modalities) == channels:
        channels *= options.channel_repeat
    if options.slice_axis is None:
        return ("batch", channels, *spatial)
    if options.slice_axis >= len(spatial) or len(spatial) != 3:
        raise ModelRefused("REMOTE_METADATA", "A model of slices needs a spatial_shape of three sizes, that of the volume.")
    slices = spatial.pop(options.slice_axis)
    return (slices, channels, *spatial) if options.batch_is_slices else ("batch", slices, channels, *spatial)


def _type(datatype: str) -> np.dtype[np.generic]:
    if datatype not in DATATYPES:
        raise ModelRefused("INPUT_TYPE", "An input of the remote model is neither FP32 nor FP16. Serve one that is.")
    return np.dtype(DATATYPES[datatype])


def _output(
    told: open_inference_pb2.ModelMetadataResponse, metadata: Metadata, remote: RemoteOptions
) -> tuple[str, OutputMetadata]:
    reported = [each.name for each in told.outputs]
    if remote.output:
        entry = next((each for each in metadata.outputs if each.name == remote.output), metadata.outputs[0])
        name = remote.output
    else:
        entry = next((each for each in metadata.outputs if each.name in reported), metadata.outputs[0])
        name = reported[0] if len(reported) == len(metadata.outputs) == 1 else entry.name
    if reported and name not in reported:
        told_so = "The remote model has no output of the name that the bundle explains. Name one in voxplain.remote.output."
        raise ModelRefused("OUTPUT_UNKNOWN", told_so)
    return name, entry


def _output_shape(
    told: open_inference_pb2.ModelMetadataResponse, name: str, entry: OutputMetadata, metadata: Metadata
) -> Shape:
    own = next((each for each in told.outputs if each.name == name), None)
    if own is not None and own.datatype and own.datatype not in DATATYPES:
        raise ModelRefused("OUTPUT_TYPE", "The explained output of the remote model does not hold floating-point numbers.")
    if own is not None and own.shape:
        return _reported_shape(own.shape)
    if entry.channels is None:
        raise ModelRefused("OUTPUT_SHAPE", "The remote server does not tell the shape of its output. State num_channels.")
    spatial = [axis.size for axis in metadata.inputs[0].spatial] if entry.format == "segmentation" else []
    return ("batch", entry.channels, *spatial)
