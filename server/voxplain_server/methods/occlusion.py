"""Occlusion: what the score loses when a window is filled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from voxplain.errors import InvalidSpec
from voxplain.v1 import method_pb2

from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.features.region import Region
from voxplain_server.methods.baselines import baseline_volumes
from voxplain_server.methods.checked_cast import checked_cast
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.method import Remark, Setting, Violation
from voxplain_server.methods.plan import MAX_EVALUATIONS, Block, Plan, cut
from voxplain_server.methods.sliding_window import SlidingWindow
from voxplain_server.models.case import Volumes
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits

DEFAULT_WINDOW_VOXELS = 11
DEFAULT_STRIDE_VOXELS = 5
MAX_EDGE_VOXELS = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class OcclusionPlan:
    """One perturbation for each place of the window on each modality, coarse to fine.

    Attributes:
        windows: the places on each modality.
        order: (evaluations,) the place of each evaluation; places are counted through the modalities.
        unchanged: (evaluations,) where the fill equals what it covers.
        fill: what fills the window.
        base_score: score of the case.
        block_size: evaluations in one block.
    """

    windows: tuple[SlidingWindow, ...]
    order: npt.NDArray[np.int64]
    unchanged: npt.NDArray[np.bool_]
    fill: Volumes
    base_score: float
    block_size: int

    @property
    def evaluations(self) -> int:
        """One for each place."""
        return int(self.order.size)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Equal ranges."""
        return cut(self.evaluations, self.block_size)

    @property
    def features(self) -> int | None:
        """Windows are no features."""
        return None

    def perturbation(self, index: int) -> Perturbation:
        """The window at one place of one modality."""
        place = int(self.order[index])
        for modality, windows in enumerate(self.windows):
            if place < windows.places:
                return Perturbation(regions=(Region(modality=modality, box=windows.box(place)),), source=self.fill)
            place -= windows.places
        raise IndexError("the plan has no such evaluation")

    def by_place(self, values: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
        """Sort one value for each evaluation into one array for each modality, (places,)."""
        placed = np.empty(self.evaluations, dtype=np.float64)
        placed[self.order] = values
        ends = np.cumsum([windows.places for windows in self.windows])
        return np.split(placed, ends[:-1])


class Occlusion:
    """Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014.

    A voxel's attribution is the mean of f(case) - f(case with the window filled) over the windows that cover it.
    """

    name = "occlusion"
    summary = "Slides a window over one modality at a time, fills it, and gives its voxels the drop of the score."
    citation = "Zeiler and Fergus 2014, doi 10.1007/978-3-319-10590-1_53"
    assumptions: tuple[str, ...] = (
        "What fills the window is neutral: the model does not read the fill itself as a finding.",
        "What matters is about the size of the window; finer structures are blurred, larger ones never wholly covered.",
    )
    signed = True
    shared_map = False
    needs_gradients = False

    def defaults(self, model: Model | None) -> method_pb2.Occlusion:
        """Window 11 and stride 5, cut to the grid where it is known and smaller; normal noise."""
        window = _cut_to_grid(DEFAULT_WINDOW_VOXELS, model)
        return method_pb2.Occlusion(
            window=window,
            stride=[min(DEFAULT_STRIDE_VOXELS, edge) for edge in window],
            fill=method_pb2.Baseline(normal_noise=method_pb2.NormalNoiseBaseline()),
        )

    def adapt_defaults(self, defaults: Message, asked: Message) -> None:
        """A default stride is cut to a smaller window that was asked for, so that a window alone can be set."""
        own, window = checked_cast(defaults, method_pb2.Occlusion), checked_cast(asked, method_pb2.Occlusion).window
        if window:
            own.stride[:] = [min(DEFAULT_STRIDE_VOXELS, max(edge, 1)) for edge in window]

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """Window and stride must have a number for each axis, fit the grid, and leave no voxel uncovered."""
        return list(_violations(checked_cast(params, method_pb2.Occlusion), model))

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """It works on every model."""
        return ()

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """Places of the window, summed over modalities."""
        return sum(_sliding_window(checked_cast(params, method_pb2.Occlusion), shape).places for shape in shapes)

    def plan(self, setting: Setting) -> Plan:
        """Order the places coarse to fine: first a sparse lattice over all modalities, then its gaps.

        Raises:
            voxplain.errors.InvalidSpec: WINDOW_TOO_LARGE, TOO_MANY_EVALUATIONS, or the fill is not there.
        """
        params, case = checked_cast(setting.params, method_pb2.Occlusion), setting.case
        windows = tuple(_sliding_window(params, volume.shape) for volume in case.volumes)
        if sum(each.places for each in windows) > MAX_EVALUATIONS:
            raise InvalidSpec("TOO_MANY_EVALUATIONS", "use a larger window and stride", field="occlusion.stride")
        fill = baseline_volumes(params.fill, case, seed=setting.seed, key=setting.key, cache=setting.features)
        order = _coarse_to_fine(windows)
        same = [
            each.sums_over_places(volume != filled) == 0
            for each, volume, filled in zip(windows, case.volumes, fill, strict=True)
        ]
        return OcclusionPlan(
            windows=windows,
            order=order,
            unchanged=np.concatenate(same)[order],
            fill=fill,
            base_score=setting.base_score,
            block_size=setting.block_size,
        )

    def estimate(self, plan: Plan, scores: npt.NDArray[np.float64], done: npt.NDArray[np.bool_]) -> Estimate:
        """Average the drops over the windows done so far; voxels that none has reached are NaN."""
        own = checked_cast(plan, OcclusionPlan)
        drops = own.by_place(np.where(done, own.base_score - np.where(done, scores, 0.0), 0.0))
        reached = own.by_place(done.astype(np.float64))
        maps, coverage = [], []
        for windows, drop, there in zip(own.windows, drops, reached, strict=True):
            covered = windows.spread_over_voxels(there)
            total = windows.spread_over_voxels(drop)
            maps.append(np.divide(total, covered, out=np.full(windows.shape, np.nan), where=covered > 0))
            coverage.append(covered / windows.spread_over_voxels(np.ones(windows.places)))
        return Estimate(maps=tuple(maps), coverage=tuple(coverage), saved=int((own.unchanged & done).sum()), signed=self.signed)


def _cut_to_grid(edge: int, model: Model | None) -> list[int]:
    shapes = [] if model is None else [modality.shape for modality in model.modalities]
    if len({len(shape) for shape in shapes}) != 1:
        return [min([edge, *(n for shape in shapes for n in shape if n is not None)])]
    smallest = [min([edge, *(n for n in axis if n is not None)]) for axis in zip(*shapes, strict=True)]
    return smallest if min(smallest) < edge else [edge]


def _violations(params: method_pb2.Occlusion, model: Model) -> Iterator[Violation]:
    for field in ("window", "stride"):
        edges = getattr(params, field)
        if any(len(edges) not in (1, len(modality.shape)) for modality in model.modalities):
            yield Violation(field, "WRONG_LENGTH", "give one number for all axes, or one for each axis of every modality")
            return
        if any(not 1 <= edge <= MAX_EDGE_VOXELS for edge in edges):
            yield Violation(field, "OUT_OF_RANGE", f"must be at least 1 and at most {MAX_EDGE_VOXELS:,}")
            return
    for modality in model.modalities:
        window, stride = _per_axis(params.window, len(modality.shape)), _per_axis(params.stride, len(modality.shape))
        if any(n is not None and edge > n for edge, n in zip(window, modality.shape, strict=True)):
            yield Violation("window", "WINDOW_TOO_LARGE", "must not be larger than the volume on the model's grid")
        if any(step > edge for step, edge in zip(stride, window, strict=True)):
            yield Violation("stride", "STRIDE_TOO_LARGE", "must not be larger than the window, or voxels would be left out")


def _sliding_window(params: method_pb2.Occlusion, shape: tuple[int, ...]) -> SlidingWindow:
    window, stride = _per_axis(params.window, len(shape)), _per_axis(params.stride, len(shape))
    if list(params.window) == [DEFAULT_WINDOW_VOXELS]:
        # The default is cut to the grid; where the bundle leaves the grid open this is the first place that knows it.
        window = tuple(min(edge, n) for edge, n in zip(window, shape, strict=True))
        stride = tuple(min(step, edge) for step, edge in zip(stride, window, strict=True))
    if len(window) != len(shape) or any(edge > n for edge, n in zip(window, shape, strict=False)):
        raise InvalidSpec(
            "WINDOW_TOO_LARGE", "must not be larger than the volume on the model's grid", field="occlusion.window"
        )
    return SlidingWindow(shape=shape, window=window, stride=stride)


def _per_axis(edges: Sequence[int], rank: int) -> tuple[int, ...]:
    return tuple(edges) * rank if len(edges) == 1 else tuple(edges)


def _coarse_to_fine(windows: Sequence[SlidingWindow]) -> npt.NDArray[np.int64]:
    fineness, scatter, modalities = [], [], []
    for modality, each in enumerate(windows):
        coarseness = each.coarseness()
        fineness.append(coarseness.max(initial=0) - coarseness)
        # Multiples of the golden ratio, modulo one, spread any number of places evenly (Knuth, TAOCP 3, 6.4).
        scatter.append(np.arange(each.places, dtype=np.uint64) * np.uint64(2_654_435_769) % np.uint64(1 << 32))
        modalities.append(np.full(each.places, modality))
    return np.lexsort((np.concatenate(modalities), np.concatenate(scatter), np.concatenate(fineness)))


METHOD = Occlusion()
