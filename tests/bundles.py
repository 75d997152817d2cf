"""Tiny model bundles for tests, written with onnx.helper alone: no training, no torch, a few milliseconds each.

Weights are random but seeded, so that every run of the tests meets the same model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from voxplain.v1 import tensor_pb2

Voxels = npt.NDArray[np.float32]

MODALITIES = ("t1", "t1c", "t2", "flair")
CLASSES = ("round", "irregular")
_OPSET = 18
_CHANNELS = 4


@dataclass(frozen=True, slots=True)
class TinyBundle:
    """A bundle on disk and what a case for it looks like.

    Attributes:
        models: the models folder, as the server takes it.
        folder: the version's folder.
        name, version: how the model is asked for.
        shapes: voxels of each modality as a client sends it, by name, in the model's order.
        classes: names of the classes; empty for a scalar.
        affine: 4x4, of every volume.
    """

    models: Path
    folder: Path
    name: str
    version: str
    shapes: Mapping[str, tuple[int, ...]]
    classes: tuple[str, ...]
    affine: npt.NDArray[np.float64] = field(default_factory=lambda: np.diag([2.0, 2.0, 2.0, 1.0]))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in the model's order."""
        return tuple(self.shapes)

    def volumes(self, seed: int = 0) -> dict[str, Voxels]:
        """One case: an ellipsoid of positive noise on a zero background for every modality."""
        rng = np.random.default_rng(seed)
        return {name: _ellipsoid(shape, rng) for name, shape in self.shapes.items()}

    def headers(self) -> list[tensor_pb2.Tensor]:
        """The headers under which `volumes` travel; the id of a tensor is its modality."""
        return [
            tensor_pb2.Tensor(
                id=name,
                role=tensor_pb2.TENSOR_ROLE_VOLUME,
                modality=name,
                data_type=tensor_pb2.DATA_TYPE_FLOAT32,
                shape=shape,
                affine=self.affine.ravel().tolist(),
            )
            for name, shape in self.shapes.items()
        ]


def early_fusion_classes(
    models: Path,
    *,
    name: str = "tiny-glioma",
    version: str = "1",
    modalities: int = 4,
    shape: tuple[int, ...] = (12, 14, 10),
    softmax: bool = False,
    dynamic_shape: bool = False,
    batch: int | None = None,
    seed: int = 0,
    voxplain: Mapping[str, Any] | None = None,
    patch: bool = False,
) -> TinyBundle:
    """Modalities are channels of one input: convolution, ReLU, convolution, ReLU, global pooling, two classes.

    `batch` fixes the batch axis; `dynamic_shape` leaves the spatial axes free.
    """
    net = _Network(seed)
    dims: list[int | str] = [*"xyz"[: len(shape)]] if dynamic_shape else [*shape]
    net.input("image", ["batch" if batch is None else batch, modalities, *dims])
    value = net.classify(net.trunk("image", modalities, axes=len(shape)), outputs=len(CLASSES))
    if softmax:
        value = net.add("Softmax", [value], axis=1)
    net.output(value, "pred", ["batch" if batch is None else batch, len(CLASSES)])
    names = MODALITIES[:modalities]
    metadata = _metadata(
        inputs={"image": _image(names, spatial_shape=["*"] * len(shape) if dynamic_shape else list(shape), patch=patch)},
        output=_answer(CLASSES, kind="probabilities" if softmax else "logits"),
        voxplain=voxplain,
    )
    folder = _write(models / name / version, net.model(), metadata)
    return TinyBundle(models, folder, name, version, dict.fromkeys(names, shape), CLASSES)


def fixed_batch(models: Path, *, name: str = "tiny-fixed", seed: int = 0) -> TinyBundle:
    """As early_fusion_classes with two modalities, but the batch axis is fixed at 1."""
    return early_fusion_classes(models, name=name, modalities=2, batch=1, seed=seed)


def two_dimensional(models: Path, *, name: str = "tiny-2d", seed: int = 0) -> TinyBundle:
    """As early_fusion_classes with two modalities on planes."""
    return early_fusion_classes(models, name=name, modalities=2, shape=(20, 16), seed=seed)


def sigmoid(
    models: Path, *, name: str = "tiny-sigmoid", with_sigmoid: bool = True, threshold: float | None = 0.5, seed: int = 0
) -> TinyBundle:
    """Two modalities, one output through a sigmoid: class 1 is "tear", class 0 "intact"."""
    classes = ("intact", "tear")
    net, names, shape = _Network(seed), MODALITIES[:2], (12, 14, 10)
    net.input("image", ["batch", 2, *shape])
    value = net.classify(net.trunk("image", 2, axes=3), outputs=1)
    if with_sigmoid:
        value = net.add("Sigmoid", [value])
    net.output(value, "pred", ["batch", 1])
    metadata = _metadata(
        inputs={"image": _image(names, spatial_shape=list(shape))},
        output=_answer(classes, kind="probabilities" if with_sigmoid else "logits", channels=1),
        voxplain={} if threshold is None else {"decision_threshold": threshold},
    )
    folder = _write(models / name / "1", net.model(), metadata)
    return TinyBundle(models, folder, name, "1", dict.fromkeys(names, shape), classes)


def scalar(models: Path, *, name: str = "tiny-age", seed: int = 0) -> TinyBundle:
    """Two modalities, one number such as an age."""
    net, names, shape = _Network(seed), MODALITIES[:2], (12, 14, 10)
    net.input("image", ["batch", 2, *shape])
    net.output(net.classify(net.trunk("image", 2, axes=3), outputs=1), "age", ["batch", 1])
    metadata = _metadata(
        inputs={"image": _image(names, spatial_shape=list(shape))},
        output={"type": "value", "format": "magnitude", "num_channels": 1, "channel_def": {"0": "age"}},
        voxplain={"output": {"kind": "scalar"}},
    )
    folder = _write(models / name / "1", net.model(), metadata)
    return TinyBundle(models, folder, name, "1", dict.fromkeys(names, shape), ())


def segmentation(
    models: Path,
    *,
    name: str = "tiny-segmentation",
    shape: tuple[int, ...] = (12, 14, 10),
    softmax: bool = False,
    seed: int = 0,
) -> TinyBundle:
    """Two modalities; one score for "background" and "tumour" at every voxel."""
    classes, names, axes = ("background", "tumour"), MODALITIES[:2], len(shape)
    net = _Network(seed)
    net.input("image", ["batch", 2, *shape])
    value = net.convolve(net.trunk("image", 2, axes=axes), _CHANNELS, 2, axes=axes)
    if softmax:
        value = net.add("Softmax", [value], axis=1)
    net.output(value, "pred", ["batch", 2, *shape])
    metadata = _metadata(
        inputs={"image": _image(names, spatial_shape=list(shape))},
        output={"type": "image", "format": "segmentation", "num_channels": 2, "channel_def": _channels(classes)},
    )
    folder = _write(models / name / "1", net.model(), metadata)
    return TinyBundle(models, folder, name, "1", dict.fromkeys(names, shape), classes)


def late_fusion(models: Path, *, name: str = "tiny-two-views", seed: int = 0) -> TinyBundle:
    """Two inputs of one modality each, with different shapes; branches meet after their pooling."""
    shapes = {"axial": (12, 12, 8), "sagittal": (10, 14, 6)}
    net = _Network(seed)
    for view, shape in shapes.items():
        net.input(view, ["batch", 1, *shape])
    pooled = [net.pool(net.trunk(view, 1, axes=3)) for view in shapes]
    joined = net.add("Concat", pooled, axis=1)
    net.output(net.dense(joined, _CHANNELS * len(shapes), len(CLASSES)), "pred", ["batch", len(CLASSES)])
    metadata = _metadata(
        inputs={view: _image((view,), spatial_shape=list(shape)) for view, shape in shapes.items()},
        output=_answer(CLASSES, kind="logits"),
    )
    folder = _write(models / name / "1", net.model(), metadata)
    return TinyBundle(models, folder, name, "1", shapes, CLASSES)


def slices_2_5d(models: Path, *, name: str = "tiny-knee", batch_is_slices: bool = False, seed: int = 0) -> TinyBundle:
    """Three views of a knee as in MRNet: any number of slices, three equal channels, the maximum over the slices.

    The graph reads (1, slices, 3, 16, 16) and squeezes axis 0 away, or, with `batch_is_slices`, (slices, 3, 16, 16). A
    client sends slices along the first axis of the sagittal volume, the second of the coronal, the third of the axial.
    """
    shapes = {"sagittal": (5, 16, 16), "coronal": (16, 6, 16), "axial": (16, 16, 4)}
    net = _Network(seed)
    pooled = []
    for view in shapes:
        net.input(view, [f"{view}_slices", 3, 16, 16] if batch_is_slices else [1, f"{view}_slices", 3, 16, 16])
        stack = view if batch_is_slices else net.add("Squeeze", [view, net.constant(np.array([0]))])
        features = net.pool(net.trunk(stack, 3, axes=2))
        pooled.append(net.add("ReduceMax", [features, net.constant(np.array([0]))], keepdims=1))
    joined = net.add("Concat", pooled, axis=1)
    net.output(net.add("Sigmoid", [net.dense(joined, _CHANNELS * len(shapes), 1)]), "pred", [1, 1])
    voxplain: dict[str, Any] = {
        "channel_repeat": 3,
        "slice_axis": {view: axis for axis, view in enumerate(shapes)},
        "batch_is_slices": batch_is_slices,
    }
    metadata = _metadata(
        inputs={view: _image((view,), spatial_shape=(16, 16), channels=3) for view in shapes},
        output=_answer(("intact", "tear"), kind="probabilities", channels=1),
        voxplain=voxplain,
    )
    folder = _write(models / name / "1", net.model(), metadata)
    return TinyBundle(models, folder, name, "1", shapes, ("intact", "tear"))


class _Network:
    """Nodes and weights of one graph."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def input(self, name: str, dims: Sequence[int | str]) -> None:
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))

    def output(self, value: str, name: str, dims: Sequence[int | str]) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))

    def constant(self, array: npt.NDArray[Any]) -> str:
        name = f"weight_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def convolve(self, value: str, channels: int, outputs: int, *, axes: int) -> str:
        scale = (2.0 / (channels * 3**axes)) ** 0.5
        weight = self._rng.normal(0.0, scale, (outputs, channels, *[3] * axes)).astype(np.float32)
        bias = self._rng.normal(0.0, 0.1, outputs).astype(np.float32)
        values = [value, self.constant(weight), self.constant(bias)]
        return self.add("Conv", values, kernel_shape=[3] * axes, pads=[1] * 2 * axes)

    def trunk(self, value: str, channels: int, *, axes: int) -> str:
        hidden = self.add("Relu", [self.convolve(value, channels, _CHANNELS, axes=axes)])
        return self.add("Relu", [self.convolve(hidden, _CHANNELS, _CHANNELS, axes=axes)])

    def pool(self, value: str) -> str:
        return self.add("Flatten", [self.add("GlobalAveragePool", [value])], axis=1)

    def dense(self, value: str, channels: int, outputs: int) -> str:
        weight = self._rng.normal(0.0, 1.0, (outputs, channels)).astype(np.float32)
        bias = self._rng.normal(0.0, 0.1, outputs).astype(np.float32)
        return self.add("Gemm", [value, self.constant(weight), self.constant(bias)], transB=1)

    def classify(self, value: str, *, outputs: int) -> str:
        return self.dense(self.pool(value), _CHANNELS, outputs)

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, "tiny", self._inputs, self._outputs, self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)


def _ellipsoid(shape: tuple[int, ...], rng: np.random.Generator) -> Voxels:
    axes = np.meshgrid(*[np.linspace(-1.0, 1.0, n) for n in shape], indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.9
    noise = rng.uniform(0.5, 1.5, shape) + 0.5 * axes[0]
    return np.where(inside, noise, 0.0).astype(np.float32)


def _channels(names: Sequence[str]) -> dict[str, str]:
    return {str(index): name for index, name in enumerate(names)}


def _image(
    names: Sequence[str],
    *,
    spatial_shape: Sequence[int | str],
    channels: int | None = None,
    patch: bool = False,
) -> dict[str, Any]:
    return {
        "type": "image",
        "format": "magnitude",
        "modality": "MR",
        "num_channels": len(names) if channels is None else channels,
        "spatial_shape": list(spatial_shape),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": patch,
        "channel_def": _channels(names),
    }


def _answer(classes: Sequence[str], *, kind: str, channels: int | None = None) -> dict[str, Any]:
    return {
        "type": kind,
        "format": "classes",
        "num_channels": len(classes) if channels is None else channels,
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": _channels(classes),
    }


def _metadata(
    *, inputs: Mapping[str, Any], output: Mapping[str, Any], voxplain: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "version": "1.0.0",
        "name": "A tiny model",
        "description": "A tiny model for tests.",
        "network_data_format": {"inputs": dict(inputs), "outputs": {"pred": dict(output)}},
    }
    return whole | ({"voxplain": dict(voxplain)} if voxplain else {})


def _write(folder: Path, model: onnx.ModelProto, metadata: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=2), encoding="utf-8")
    return folder
