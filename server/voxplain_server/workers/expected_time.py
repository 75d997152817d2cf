"""What an explanation will take, from counted work and the rates that were measured when the model was checked.

Light: the front asks, before a byte of a case is there. What only the case tells (how much of it is not zero, which windows
change anything, how large its supervoxels are) is taken as usual; the plans that are made later know better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from voxplain.v1 import explain_pb2, method_pb2

from voxplain_server.methods import all_methods
from voxplain_server.methods.feature_grouping import count_features
from voxplain_server.models.traits import ModelTraits
from voxplain_server.workers.execution import is_incremental

BACKWARD_COST = 3.0
"""A gradient pass over an evaluation, where nobody measured it: one forward, and twice that backward."""
NONZERO = 0.4
"""Share of the voxels that are not background in a volume of the head."""
SLIC_PROBE_EDGE = 32
"""Of the volume on which the rate of making supervoxels is measured."""
_SLIC_GROWTH = 0.85
"""Making supervoxels of n times the voxels takes n to this power as long: measured from 24^3 to 128^3, within a fifth."""
SUPERVOXEL_BOX = 1.4
"""Edge of the box around a supervoxel over that of a cube of its voxels; measured at 64^3 and 128^3."""
PREPARING_SECONDS_PER_VOXEL = 3e-8
"""Reading, digesting, fitting and normalising; on one core."""
MAP_SECONDS_PER_VOXEL = 6e-8
"""Estimating, painting, digesting and handing over a map; on one core."""
TRANSFER_BYTES_PER_SECOND = 5e8
"""Upload and maps over one connection on one host."""
_VOXEL_BYTES = 4
_FORWARDS_AND_BACKWARDS: Mapping[str, float] = {
    "grad-cam": 0.6,
    "guided-grad-cam": 0.55,
    "deep-lift": 2.3,
    "smooth-grad": 1.15,
    "integrated-gradients": 1.05,
    "gradient-shap": 1.2,
}
"""What a pass of a method takes over a plain gradient, where it is not about the same: DeepLIFT goes forward twice and computes
slopes, GradientSHAP scores case and baseline besides, integrated gradients stops behind the first convolution. Measured at
4 x 48^3 and 4 x 128^3."""
_SAMPLING_SECONDS_PER_VOXEL: Mapping[str, float] = {"smooth-grad": 1.5e-8, "gradient-shap": 0.5e-8}
"""Drawing noise and taking means, for each pass."""
_WALKS = ("shapley-value-sampling", "antithetic-shapley")
WALK_STEP_SECONDS = 7.5e-3
"""A step of a walk goes through the network alone, where windows go side by side: what that costs in each layer does not depend
on voxels. Measured at 4 x 48^3 and 4 x 128^3 on eleven convolutions; deeper networks take more."""
_COALITIONS = ("kernel-shap", "leverage-shap", "lime", "fold-over-lime", "modality-shapley")


@dataclass(frozen=True, slots=True)
class ExpectedTime:
    """Seconds.

    Attributes:
        methods: compute of each, by key.
        preparing: from the last byte to the first evaluation.
        transfer: upload and maps.
    """

    methods: Mapping[str, float]
    preparing: float
    transfer: float

    @property
    def total(self) -> float:
        """All of it, one after another."""
        return self.preparing + self.transfer + sum(self.methods.values())


def expect_time(
    spec: explain_pb2.ExplainSpec,
    traits: ModelTraits,
    *,
    evaluations: Mapping[str, int],
    shapes: Sequence[tuple[int, ...]],
    engine: str,
    threads: int,
) -> ExpectedTime:
    """Estimate a resolved spec.

    Args:
        spec: the request.
        traits: of the model, with its rates.
        evaluations: of each method, by key.
        shapes: of the modalities, on the model's grid.
        engine: that evaluates perturbed cases.
        threads: of one worker; others that help are a gain.
    """
    methods = {
        each.key: evaluations[each.key] * expect_seconds_each(each, traits, shapes, engine=engine)
        + MAP_SECONDS_PER_VOXEL * _map_voxels(each, shapes)
        for each in spec.methods
    }
    sent = sum(math.prod(tensor.shape) for tensor in spec.tensors) + sum(_map_voxels(each, shapes) for each in spec.methods)
    return ExpectedTime(
        methods=methods,
        preparing=_preparing(spec, traits, shapes, engine=engine, threads=threads),
        transfer=sent * _VOXEL_BYTES / TRANSFER_BYTES_PER_SECOND,
    )


def expect_seconds_each(
    asked: method_pb2.Method, traits: ModelTraits, shapes: Sequence[tuple[int, ...]], *, engine: str
) -> float:
    """Estimated time of one evaluation, or of one gradient pass, of a resolved method on modalities of these shapes."""
    which = asked.WhichOneof("method") or ""
    name, params = which.replace("_", "-"), getattr(asked, which)
    if all_methods()[name].needs_gradients:
        measured = traits.gradient_seconds or BACKWARD_COST * traits.evaluation_seconds
        own = _SAMPLING_SECONDS_PER_VOXEL.get(name, 0.0) * sum(math.prod(shape) for shape in shapes)
        return measured * traits.growth(shapes) * _FORWARDS_AND_BACKWARDS.get(name, 1.0) + own
    whole, choice = traits.whole_pass_seconds_of(shapes), traits.engine_choice
    edge = _changed_edge(name, params, shapes)
    if choice is None or edge is None or not is_incremental(engine):
        return whole
    alone = WALK_STEP_SECONDS if name in _WALKS else 0.0
    return min(whole, alone + choice.seconds_of(choice.share_of(edge, growth=traits.growth(shapes)), whole=whole))


def _map_voxels(asked: method_pb2.Method, shapes: Sequence[tuple[int, ...]]) -> int:
    """Of all maps of a method; one map may serve all modalities."""
    shared = all_methods()[(asked.WhichOneof("method") or "").replace("_", "-")].shared_map
    sizes = [math.prod(shape) for shape in shapes]
    return max(sizes) if shared else sum(sizes)


def _changed_edge(name: str, params: Message, shapes: Sequence[tuple[int, ...]]) -> float | None:
    """Edge of the cube that one evaluation changes, in voxels; None: about everything."""
    window = getattr(params, "window", None)
    if window:
        return float(math.prod(window) ** (1.0 / len(window)))
    grouping = getattr(params, "grouping", None)
    if name in _COALITIONS or not isinstance(grouping, method_pb2.FeatureGrouping):
        return None
    kind = grouping.WhichOneof("kind")
    if kind == "grid":
        edges = grouping.grid.edge_voxels
        return float(math.prod(edges) ** (1.0 / len(edges)))
    if kind == "slic":
        features = max(count_features(grouping, shapes[:1]), 1)
        return float(SUPERVOXEL_BOX * (NONZERO * math.prod(shapes[0]) / features) ** (1.0 / len(shapes[0])))
    return None


def _preparing(
    spec: explain_pb2.ExplainSpec, traits: ModelTraits, shapes: Sequence[tuple[int, ...]], *, engine: str, threads: int
) -> float:
    voxels = sum(math.prod(shape) for shape in shapes)
    answer = traits.evaluation_seconds_of(shapes)
    return answer + PREPARING_SECONDS_PER_VOXEL * voxels + _grouping(spec, traits, shapes, threads=threads)


def _grouping(spec: explain_pb2.ExplainSpec, traits: ModelTraits, shapes: Sequence[tuple[int, ...]], *, threads: int) -> float:
    """Supervoxels, each set of them once: of one modality, or of all side by side."""
    wanted: dict[tuple[int, float, float], set[str]] = {}
    for each in spec.methods:
        grouping = getattr(getattr(each, each.WhichOneof("method") or ""), "grouping", None)
        if isinstance(grouping, method_pb2.FeatureGrouping) and grouping.WhichOneof("kind") == "slic":
            slic = grouping.slic
            of = wanted.setdefault((slic.segments, slic.compactness, slic.sigma_voxels), set())
            of.update({grouping.grouping_modality} if grouping.shared else {str(number) for number in range(len(shapes))})
    largest = max(math.prod(shape) for shape in shapes)
    rounds = sum(math.ceil(min(len(of), len(shapes)) / max(threads, 1)) for of in wanted.values())
    probed = NONZERO * SLIC_PROBE_EDGE**3
    alone = probed * traits.slic_seconds_per_voxel * float((NONZERO * largest / probed) ** _SLIC_GROWTH)
    return rounds * alone
