"""Models, cases and scores over the networks of tests.bundles, described by hand so that no bundle loader is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from voxplain.volume import Geometry
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.features.region import Region
from voxplain_server.graph.twin import Twin, build_twin
from voxplain_server.models.case import Case
from voxplain_server.models.model import Activation, InputSpec, ModalitySpec, Model, OutputKind, OutputSpec
from voxplain_server.models.score import Score

from tests import bundles


@dataclass(frozen=True, slots=True, eq=False)
class TinyModel:
    """A network, one case for it and a score."""

    proto: onnx.ModelProto
    model: Model
    case: Case
    score: Score

    def twin(self, dtype: torch.dtype = torch.float64) -> Twin:
        """From the model's inputs to the value whose numbers are scores."""
        return build_twin(self.proto, dtype=dtype, outputs=[self.model.output.score_name])


def early(folder: Path) -> TinyModel:
    """Two modalities in one input, two classes."""
    bundle = bundles.early_fusion_classes(folder, modalities=2)
    return _tiny(bundle, _together(bundle), _output(bundle, OutputKind.CLASSES), weights=((0, 1.0), (1, -1.0)))


def probability(folder: Path) -> TinyModel:
    """The probability behind a softmax."""
    bundle = bundles.early_fusion_classes(folder, name="tiny-softmax", modalities=2, softmax=True)
    tiny = _tiny(bundle, _together(bundle), _output(bundle, OutputKind.CLASSES, Activation.SOFTMAX), weights=((1, 1.0),))
    return replace(tiny, score=replace(tiny.score, probability=True))


def fixed(folder: Path) -> TinyModel:
    """A batch axis fixed at 1."""
    bundle = bundles.fixed_batch(folder)
    return _tiny(bundle, _together(bundle), _output(bundle, OutputKind.CLASSES), batched=False)


def plane(folder: Path) -> TinyModel:
    """Two dimensions."""
    bundle = bundles.two_dimensional(folder)
    return _tiny(bundle, _together(bundle), _output(bundle, OutputKind.CLASSES), weights=((0, 1.0),))


def sigmoid(folder: Path) -> TinyModel:
    """One sigmoid output; class 0 is the negative logit."""
    bundle = bundles.sigmoid(folder)
    return _tiny(bundle, _together(bundle), _output(bundle, OutputKind.SIGMOID, Activation.SIGMOID), weights=((0, 1.0),))


def sigmoid_probability(folder: Path) -> TinyModel:
    """One sigmoid output, on the scale of probability."""
    bundle = bundles.sigmoid(folder, name="tiny-sigmoid-probability")
    tiny = _tiny(bundle, _together(bundle), _output(bundle, OutputKind.SIGMOID, Activation.SIGMOID))
    return replace(tiny, score=replace(tiny.score, probability=True))


def scalar(folder: Path) -> TinyModel:
    """One number."""
    bundle = bundles.scalar(folder)
    return _tiny(bundle, _together(bundle), _output(bundle, OutputKind.SCALAR), weights=((0, 1.0),))


def segmentation(folder: Path) -> TinyModel:
    """A class averaged over a region."""
    bundle = bundles.segmentation(folder)
    tiny = _tiny(bundle, _together(bundle), _output(bundle, OutputKind.SEGMENTATION))
    region = np.zeros(tiny.case.volumes[0].shape, dtype=np.bool_)
    region[3:7, 4:9, 2:5] = True
    return replace(tiny, score=replace(tiny.score, region=region))


def late(folder: Path) -> TinyModel:
    """Two inputs of different shapes."""
    bundle = bundles.late_fusion(folder)
    return _tiny(bundle, _apart(bundle), _output(bundle, OutputKind.CLASSES))


def knee(folder: Path) -> TinyModel:
    """Three stacks of slices, three equal channels, `squeeze(0)`: the batch axis is fixed at 1."""
    bundle = bundles.slices_2_5d(folder)
    return _tiny(bundle, _stacks(bundle), _output(bundle, OutputKind.SIGMOID, Activation.SIGMOID), batched=False)


def knee_without_batch(folder: Path) -> TinyModel:
    """Three stacks of slices whose slices use up the batch axis."""
    bundle = bundles.slices_2_5d(folder, name="tiny-knee-slices", batch_is_slices=True)
    stacks = tuple(replace(spec, batch_is_slices=True) for spec in _stacks(bundle))
    return _tiny(bundle, stacks, _output(bundle, OutputKind.SIGMOID, Activation.SIGMOID), batched=False)


TINY_MODELS: tuple[Callable[[Path], TinyModel], ...] = (
    early,
    probability,
    fixed,
    plane,
    sigmoid,
    sigmoid_probability,
    scalar,
    segmentation,
    late,
    knee,
    knee_without_batch,
)


def replacements(case: Case, *, count: int = 7, seed: int = 3) -> list[Perturbation]:
    """Boxes and scattered voxels of one modality or all, replaced by noise; every fourth perturbation changes nothing."""
    rng = np.random.default_rng(seed)
    source = tuple(rng.normal(0.0, 2.0, volume.shape).astype(np.float32) for volume in case.volumes)
    made = []
    for number in range(count):
        modality = number % len(case.volumes)
        shape = case.volumes[modality].shape
        box = tuple(slice(number % 3, min(number % 3 + 4, size)) for size in shape)
        whole = tuple(slice(0, size) for size in shape)
        scattered = np.sort(rng.choice(case.volumes[modality].size, size=40, replace=False)).astype(np.int64)
        regions = [
            (Region(modality=modality, box=box),),
            (Region(modality=modality, box=whole, indices=scattered),),
            tuple(Region(modality=m, box=tuple(slice(1, 4) for _ in v.shape)) for m, v in enumerate(case.volumes)),
            (),
        ][number % 4]
        made.append(Perturbation(regions=regions, source=source))
    return made


def apply(perturbation: Perturbation, case: Case) -> Case:
    """A perturbed case, written the slow way."""
    volumes = [volume.copy() for volume in case.volumes]
    for region in perturbation.regions:
        chosen = np.zeros(volumes[region.modality].shape, dtype=np.bool_)
        if region.indices is None:
            chosen[region.box] = True
        else:
            chosen.ravel()[region.indices] = True
        volumes[region.modality][chosen] = perturbation.source[region.modality][chosen]
    return replace(case, volumes=tuple(volumes))


def _tiny(
    bundle: bundles.TinyBundle,
    inputs: tuple[InputSpec, ...],
    output: OutputSpec,
    *,
    batched: bool = True,
    weights: tuple[tuple[int, float], ...] = ((1, 1.0),),
) -> TinyModel:
    by_modality = {name: (spec.name, order) for spec in inputs for order, name in enumerate(spec.modalities)}
    modalities = tuple(
        ModalitySpec(name=name, input_name=by_modality[name][0], channel=by_modality[name][1], shape=shape)
        for name, shape in bundle.shapes.items()
    )
    model = Model(
        name=bundle.name,
        version=bundle.version,
        folder=bundle.folder,
        onnx_path=bundle.folder / "model.onnx",
        digest="",
        metadata_digest="",
        description="",
        modalities=modalities,
        inputs=inputs,
        output=output,
        batched=batched,
    )
    volumes = tuple(bundle.volumes().values())
    grids = tuple(Geometry(shape=volume.shape, affine=np.eye(4)) for volume in volumes)
    case = Case(model=model, volumes=volumes, grids=grids)
    return TinyModel(onnx.load(model.onnx_path), model, case, Score(output=output, weights=weights))


def _together(bundle: bundles.TinyBundle) -> tuple[InputSpec, ...]:
    return (InputSpec(name="image", modalities=bundle.modalities),)


def _apart(bundle: bundles.TinyBundle) -> tuple[InputSpec, ...]:
    return tuple(InputSpec(name=name, modalities=(name,)) for name in bundle.modalities)


def _stacks(bundle: bundles.TinyBundle) -> tuple[InputSpec, ...]:
    return tuple(replace(spec, slice_axis=axis, repeat=3) for axis, spec in enumerate(_apart(bundle)))


def _output(bundle: bundles.TinyBundle, kind: OutputKind, activation: Activation = Activation.NONE) -> OutputSpec:
    graph = onnx.load(bundle.folder / "model.onnx").graph
    name = graph.output[0].name
    score_name = name
    if activation is not Activation.NONE:
        score_name = next(node.input[0] for node in graph.node if node.op_type in ("Softmax", "Sigmoid"))
    return OutputSpec(name=name, score_name=score_name, kind=kind, activation=activation, classes=bundle.classes)
