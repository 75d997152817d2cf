"""All gradient methods on every architecture that the twin must read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from voxplain.v1 import method_pb2
from voxplain.volume import Geometry
from voxplain_server.engines.torch_engine import TorchEngine
from voxplain_server.graph.cam_layer import find_cam_layer
from voxplain_server.graph.graph_reader import read_graph
from voxplain_server.graph.traits import has_relu, operators_without_deep_lift_rule
from voxplain_server.graph.twin import build_twin
from voxplain_server.methods import all_methods
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.method import GradientMethod, Setting
from voxplain_server.methods.pass_cache import PassCache
from voxplain_server.models.case import Case
from voxplain_server.models.model import Activation, InputSpec, ModalitySpec, Model, OutputKind, OutputSpec
from voxplain_server.models.score import Score
from voxplain_server.models.traits import ModelTraits

from tests.server.graph.exporting import export
from tests.server.graph.networks import NETWORKS, NetworkCase

METHODS = [method for method in all_methods().values() if isinstance(method, GradientMethod)]
FEW = {"steps": 2, "samples": 2}
NEED_RELU = ["deconvolution", "guided-backprop", "guided-grad-cam"]
REFUSED = {
    "unet": NEED_RELU,
    "basicunet": NEED_RELU,
    "vit": ["deconvolution", "grad-cam", "guided-backprop", "guided-grad-cam"],
}
"""PReLU, leaky ReLU and GELU nets; and a transformer whose only convolution cuts patches."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


@cache
def _exported(name: str, folder: Path) -> onnx.ModelProto:
    return onnx.load(export(NETWORKS[name], dynamo=False, folded=None, path=folder / f"{name}.onnx"))


def _model(network: NetworkCase, proto: onnx.ModelProto) -> Model:
    shape = proto.graph.output[0].type.tensor_type.shape.dim
    output = OutputSpec(
        name="scores",
        score_name="scores",
        kind=OutputKind.SEGMENTATION if len(shape) > 2 else OutputKind.CLASSES,
        activation=Activation.NONE,
        classes=tuple(f"class {index}" for index in range(shape[1].dim_value)),
    )
    modalities, inputs = [], []
    for number, dims in enumerate(network.input_shapes):
        name = f"input_{number}"
        if len(network.input_shapes) > 1:
            modalities.append(ModalitySpec(name=name, input_name=name, channel=0, shape=(dims[1], *dims[3:])))
            inputs.append(InputSpec(name=name, modalities=(name,), slice_axis=0, repeat=3))
        else:
            names = tuple(f"m{channel}" for channel in range(dims[1]))
            modalities += [ModalitySpec(name=m, input_name=name, channel=c, shape=dims[2:]) for c, m in enumerate(names)]
            inputs.append(InputSpec(name=name, modalities=names))
    return Model(
        name="net",
        version="1",
        folder=Path(),
        onnx_path=Path(),
        digest="",
        metadata_digest="",
        description="",
        modalities=tuple(modalities),
        inputs=tuple(inputs),
        output=output,
        batched=network.dynamic_batch,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """One network, a case for it, and its twin."""

    case: Case
    score: Score
    traits: ModelTraits
    twin: TorchEngine
    passes: PassCache

    def explain(self, method: GradientMethod, **changes: int) -> Estimate | None:
        """The method's estimate, or None where the model refuses it."""
        params = method.defaults(self.case.model)
        for field, value in {**FEW, **changes}.items():
            if field in params.DESCRIPTOR.fields_by_name:
                setattr(params, field, value)
        assert not method.violations(params, self.case.model)
        if any(remark.fatal for remark in method.remarks(params, self.case.model, self.traits)):
            return None
        setting = Setting(
            case=self.case,
            score=self.score,
            base_score=0.0,
            params=params,
            seed=1,
            key=method.name,
            traits=self.traits,
            block_size=1,
            passes=self.passes,
        )
        return method.attribute(setting, self.twin, advanced=lambda passes: None, cancelled=lambda: False)


def _bench(name: str, folder: Path, dtype: torch.dtype) -> Bench:
    network, proto = NETWORKS[name], _exported(name, folder)
    model, graph = _model(network, proto), read_graph(proto)
    layers = tuple(layer.value for layer in find_cam_layer(graph).layers)
    traits = ModelTraits(
        twin_parity=0.0,
        has_relu=has_relu(graph),
        cam_layers=layers,
        default_cam_layers=layers,
        deep_lift_rule_missing=operators_without_deep_lift_rule(graph),
    )
    draws = np.random.default_rng(3)
    shapes = [tuple(size for size in modality.shape if size is not None) for modality in model.modalities]
    volumes = tuple(draws.standard_normal(shape).astype(np.float32) for shape in shapes)
    case = Case(model=model, volumes=volumes, grids=tuple(Geometry(shape=shape) for shape in shapes))
    region = np.ones(shapes[0], dtype=np.bool_) if model.output.kind is OutputKind.SEGMENTATION else None
    score = Score(output=model.output, weights=((1 if model.output.classes[1:] else 0, 1.0),), region=region)
    twin = TorchEngine(build_twin(proto, dtype=dtype, outputs=["scores"]), model, dtype=dtype, threads=1)
    return Bench(case, score, traits, twin, PassCache())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_method_maps_every_modality_or_says_why_not(name: str, folder: Path) -> None:
    bench = _bench(name, folder, torch.float32)
    shapes = [volume.shape for volume in bench.case.volumes]
    refused = []
    for method in METHODS:
        estimate = bench.explain(method)
        if estimate is None:
            refused.append(method.name)
            continue
        if estimate.shared is not None:
            covered = {modality: shared.values for shared in estimate.shared for modality in shared.modalities}
            maps = [covered[modality] for modality in range(len(shapes))]
        else:
            maps = list(estimate.maps or ())
        assert [values.shape for values in maps] == shapes, method.name
        assert all(np.isfinite(values).all() for values in maps), method.name
        if "grad-cam" not in method.name:
            assert all(np.abs(values).max() > 0 for values in maps), method.name
    assert refused == REFUSED.get(name, [])


@pytest.mark.parametrize("name", ["vgg", "dirty"])
def test_deep_lift_is_complete_where_every_operator_has_a_rule(name: str, folder: Path) -> None:
    method = all_methods()["deep-lift"]
    assert isinstance(method, GradientMethod)
    bench = _bench(name, folder, torch.float64)
    assert not bench.traits.deep_lift_rule_missing
    estimate = bench.explain(method, max_pool_rule=method_pb2.MAX_POOL_RULE_COMPLETE)
    assert estimate is not None and estimate.maps is not None and estimate.completeness_gap is not None
    size = sum(np.abs(values).sum() for values in estimate.maps)
    assert abs(estimate.completeness_gap) <= 1e-9 * size
