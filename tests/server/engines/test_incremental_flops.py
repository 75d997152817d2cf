"""Operations are counted from shapes alone: how much less an occlusion window costs than a whole pass."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from voxplain_server.engines.incremental_engine import IncrementalEvaluator
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.engines.torch_evaluator import TorchEvaluator
from voxplain_server.features.region import Region
from voxplain_server.graph.twin import build_twin
from voxplain_server.methods.sliding_window import SlidingWindow
from voxplain_server.models.bundle_place import BundlePlace
from voxplain_server.models.case import Case
from voxplain_server.models.loading import LoadedModel, load_model

from tests.benchmarks import vgg_like

EDGE, WINDOW, STRIDE = 128, 11, 5
GIGA = 1e9


def load(models: Path, edge: int) -> LoadedModel:
    """The network for volumes of one edge; its first linear layer fits no other."""
    return load_model(BundlePlace("vgg-like", "1", vgg_like.write_bundle(models, edge=edge)))


def counting(loaded: LoadedModel) -> IncrementalEvaluator:
    twin = build_twin(loaded.graph, outputs=[loaded.model.output.score_name])
    return IncrementalEvaluator(loaded.graph, loaded.model, TorchEvaluator(twin, loaded.model), threads=1)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("models"), EDGE)


@pytest.fixture(scope="module")
def engine(loaded: LoadedModel) -> IncrementalEvaluator:
    return counting(loaded)


def ones(loaded: LoadedModel, edge: int) -> Case:
    return Case(model=loaded.model, volumes=(np.ones((edge,) * 3, np.float32),) * 4, grids=())


@pytest.fixture(scope="module")
def case(loaded: LoadedModel) -> Case:
    return ones(loaded, EDGE)


def occlude(case: Case, box: tuple[slice, ...], modality: int = 0) -> Perturbation:
    # One zero stands for all voxels.
    zeros = tuple(np.broadcast_to(np.float32(0), volume.shape) for volume in case.volumes)
    return Perturbation(regions=(Region(modality, box),), source=zeros)


def all_windows(case: Case, edge: int) -> list[Perturbation]:
    grid = SlidingWindow(shape=(edge,) * 3, window=(WINDOW,) * 3, stride=(STRIDE,) * 3)
    return [occlude(case, grid.box(place)) for place in range(grid.places)]


def mean_edges(edge: int) -> list[float]:
    """What the windows' boxes measure at each convolution: the cube root of their mean volume, by hand for one axis.

    A box of a grid of windows is a product of its axes, and so is the mean over the grid.
    """
    starts = np.arange(0, edge - WINDOW + STRIDE, STRIDE)
    stops, size, found = np.minimum(starts + WINDOW, edge), edge, []
    for stage in vgg_like.STAGES:
        for _ in stage:
            # A convolution adds one voxel on each side, but none beyond the volume; a pooling halves outward.
            starts, stops = np.maximum(starts - 1, 0), np.minimum(stops + 1, size)
            found.append(float((stops - starts).mean()))
        starts, stops, size = starts // 2, -(-stops // 2), size // 2
    return found


def convolutions(edges: list[float]) -> float:
    """Operations of all convolutions on boxes of such edges."""
    widths = [width for stage in vgg_like.STAGES for width in stage]
    pairs = zip([4, *widths], widths, edges, strict=False)
    return sum(2 * 27 * before * width * edge**3 for before, width, edge in pairs)


def whole_edges(edge: int) -> list[float]:
    return [float(edge >> depth) for depth, stage in enumerate(vgg_like.STAGES) for _ in stage]


def test_a_whole_pass_counts_what_the_layers_do(engine: IncrementalEvaluator, case: Case) -> None:
    expected = convolutions(whole_edges(EDGE))
    assert expected / GIGA == pytest.approx(46.3, abs=0.05)
    assert expected <= engine.full_flops(case) <= 1.01 * expected


def test_the_windows_of_the_whole_grid_take_what_their_boxes_predict(engine: IncrementalEvaluator, case: Case) -> None:
    found = engine.count_flops(case, all_windows(case, EDGE))
    expected = convolutions(mean_edges(EDGE))
    assert found.size == 25**3
    assert expected / GIGA == pytest.approx(1.467, abs=0.001)
    # Beside the convolutions: their bias, the poolings, and two linear layers of 8.4 million products.
    assert expected <= found.mean() <= 1.015 * expected
    assert engine.full_flops(case) / found.mean() == pytest.approx(31.3, abs=0.3)


def test_an_occlusion_window_takes_the_operations_of_its_boxes(engine: IncrementalEvaluator, case: Case) -> None:
    # 11 voxels from 40 on.
    start, stop, size = 40, 51, EDGE
    expected, channels = 0.0, 4
    for stage in vgg_like.STAGES:
        for width in stage:
            start, stop = max(start - 1, 0), min(stop + 1, size)
            expected += (2 * 27 * channels + 1) * width * (stop - start) ** 3
            channels = width
        start, stop, size = start // 2, -(-stop // 2), size // 2
        expected += 8 * channels * (stop - start) ** 3
    head = 2 * (channels * size**3 * vgg_like.HIDDEN + vgg_like.HIDDEN * 2)
    found = engine.count_flops(case, [occlude(case, (slice(40, 51),) * 3)])[0]
    assert expected + head <= found <= 1.01 * (expected + head)


@pytest.mark.parametrize(("edge", "ratio"), [(64, 7.6), (96, 16.3)])
def test_the_ratio_grows_with_the_volume(edge: int, ratio: float, tmp_path: Path) -> None:
    loaded = load(tmp_path, edge)
    engine, case = counting(loaded), ones(loaded, edge)
    expected = convolutions(whole_edges(edge)) / convolutions(mean_edges(edge))
    found = engine.full_flops(case) / engine.count_flops(case, all_windows(case, edge)).mean()
    assert found == pytest.approx(ratio, rel=0.02)
    assert found == pytest.approx(expected, rel=0.03)


def test_by_hand_the_ratio_reaches_81_at_192_voxels() -> None:
    assert convolutions(whole_edges(192)) / convolutions(mean_edges(192)) == pytest.approx(81.6, abs=0.1)


def test_windows_that_change_nothing_are_saved(engine: IncrementalEvaluator, loaded: LoadedModel) -> None:
    volumes = tuple(vgg_like.case(EDGE).values())
    case = Case(model=loaded.model, volumes=volumes, grids=())
    zeros = tuple(np.zeros_like(volume) for volume in volumes)
    grid = SlidingWindow(shape=(EDGE,) * 3, window=(WINDOW,) * 3, stride=(STRIDE,) * 3)
    boxes = [grid.box(place) for place in range(grid.places)]
    spared = sum(not volumes[0][box].any() for box in boxes)
    found = engine.count_flops(case, [Perturbation((Region(0, box),), zeros) for box in boxes])
    assert 0.3 < spared / grid.places < 0.6
    assert int((found == 0).sum()) == spared
    # Windows at the head's border are cut to what they change; none of them costs more than before.
    assert found.max() <= engine.count_flops(ones(loaded, EDGE), all_windows(ones(loaded, EDGE), EDGE)).max()


def test_what_changes_nothing_takes_no_operations(engine: IncrementalEvaluator, case: Case) -> None:
    same = Perturbation(regions=(Region(0, (slice(0, 9),) * 3),), source=case.volumes)
    assert engine.count_flops(case, [same, Perturbation(regions=(), source=case.volumes)]).tolist() == [0.0, 0.0]


def test_a_window_shrinks_to_what_it_changes(engine: IncrementalEvaluator, case: Case) -> None:
    source = case.volumes[0].copy()
    source[50:53, 60:64, 70:72] = 0
    large = Perturbation(regions=(Region(0, (slice(40, 80),) * 3),), source=(source, *case.volumes[1:]))
    small = occlude(case, (slice(50, 53), slice(60, 64), slice(70, 72)))
    few, many = engine.count_flops(case, [small, large])
    assert few == many
    assert not math.isclose(few, engine.full_flops(case))


def test_counting_computes_nothing(engine: IncrementalEvaluator, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def computed(*args: object) -> None:
        raise AssertionError("a layer was computed")

    monkeypatch.setattr(torch, "mkldnn_convolution", computed)
    monkeypatch.setattr("voxplain_server.engines.incremental_engine.run_keeping", computed)
    assert engine.count_flops(case, [occlude(case, (slice(0, 11),) * 3)])[0] > 0
