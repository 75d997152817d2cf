"""Bundles that are wrong in one place, and models without a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from voxplain.v1 import tensor_pb2
from voxplain_server.models.bundle_place import BundlePlace
from voxplain_server.models.loading import LoadedModel, load_model
from voxplain_server.models.model import Activation, InputSpec, ModalitySpec, Model, OutputKind, OutputSpec

from tests.bundles import TinyBundle

Dims = Sequence[int | str]
GraphNode = tuple[str, Sequence[str], str, Mapping[str, Any]]
"""Operator, inputs, output, attributes."""


def place_of(bundle: TinyBundle) -> BundlePlace:
    return BundlePlace(bundle.name, bundle.version, bundle.folder)


def load(bundle: TinyBundle) -> LoadedModel:
    return load_model(place_of(bundle))


def edit_metadata(bundle: TinyBundle, change: Callable[[dict[str, Any]], object]) -> TinyBundle:
    """Let `change` alter the metadata in place."""
    path = bundle.folder / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    change(metadata)
    path.write_text(json.dumps(metadata), encoding="utf-8")
    return bundle


def state(bundle: TinyBundle, **options: Any) -> TinyBundle:
    """Add keys to the "voxplain" object."""
    return edit_metadata(bundle, lambda metadata: metadata.setdefault("voxplain", {}).update(options))


def write_bundle(
    folder: Path,
    *,
    inputs: Mapping[str, Dims],
    outputs: Mapping[str, Dims],
    nodes: Sequence[GraphNode],
    input_metadata: Mapping[str, Any] | None = None,
    output_metadata: Mapping[str, Any] | None = None,
    voxplain: Mapping[str, Any] | None = None,
    input_type: int = TensorProto.FLOAT,
    opset: int = 18,
) -> BundlePlace:
    """A bundle whose graph is given node by node."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        [helper.make_node(operator, list(values), [output], **attributes) for operator, values, output, attributes in nodes],
        "odd",
        [helper.make_tensor_value_info(name, input_type, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()],
        [onnx.numpy_helper.from_array(np.array([0], np.int64), "zero")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(proto, folder / "model.onnx")
    described = {name: {"num_channels": 1, "channel_def": {"0": name}} | dict(input_metadata or {}) for name in inputs}
    metadata = {
        "version": "1.0.0",
        "network_data_format": {"inputs": described, "outputs": {next(iter(outputs)): dict(output_metadata or {})}},
        "voxplain": dict(voxplain or {}),
    }
    (folder / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    return BundlePlace("odd", "1", folder)


def modality(**stated: Any) -> ModalitySpec:
    """A modality "t1" of a free 3D grid, with what is stated."""
    fields: dict[str, Any] = {"name": "t1", "input_name": "image", "channel": 0, "shape": (None, None, None)}
    return ModalitySpec(**(fields | stated))


def model_of(
    modalities: Sequence[ModalitySpec] = (),
    *,
    kind: OutputKind = OutputKind.CLASSES,
    activation: Activation = Activation.SOFTMAX,
    classes: Sequence[str] = ("round", "irregular", "none"),
    threshold: float | None = None,
) -> Model:
    """A model that stands on no file."""
    modalities = tuple(modalities) or (modality(),)
    inputs: dict[str, tuple[str, ...]] = {}
    for spec in modalities:
        inputs[spec.input_name] = (*inputs.get(spec.input_name, ()), spec.name)
    return Model(
        name="none",
        version="1",
        folder=Path("none"),
        onnx_path=Path("none/model.onnx"),
        digest="0" * 64,
        metadata_digest="0" * 64,
        description="",
        modalities=modalities,
        inputs=tuple(InputSpec(name, names) for name, names in inputs.items()),
        output=OutputSpec("pred", "logits", kind, activation, tuple(classes), threshold),
        batched=True,
    )


def header(name: str = "t1", **stated: Any) -> tensor_pb2.Tensor:
    """The header of a float32 volume of 4 x 5 x 6 voxels of 1 mm."""
    fields: dict[str, Any] = {
        "id": name,
        "role": tensor_pb2.TENSOR_ROLE_VOLUME,
        "modality": name,
        "data_type": tensor_pb2.DATA_TYPE_FLOAT32,
        "shape": (4, 5, 6),
        "affine": np.eye(4).ravel().tolist(),
    }
    return tensor_pb2.Tensor(**(fields | stated))
