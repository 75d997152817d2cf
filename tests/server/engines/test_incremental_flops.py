"""Operations are counted from shapes alone: how much less an occlusion window costs than a whole pass."""

from __future__ import annotations

import math

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


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    # The network does not know the edge of its volume, so a small export will do.
    return load_model(BundlePlace("vgg-like", "1", vgg_like.write_bundle(tmp_path_factory.mktemp("models"), edge=16)))


@pytest.fixture(scope="module")
def engine(loaded: LoadedModel) -> IncrementalEvaluator:
    twin = build_twin(loaded.graph, outputs=[loaded.model.output.score_name])
    return IncrementalEvaluator(loaded.graph, loaded.model, TorchEvaluator(twin, loaded.model), threads=1)


def ones(loaded: LoadedModel, edge: int) -> Case:
    return Case(model=loaded.model, volumes=(np.ones((edge,) * 3, np.float32),) * 4, grids=())


@pytest.fixture(scope="module")
def case(loaded: LoadedModel) -> Case:
    return ones(loaded, EDGE)


def occlude(case: Case, box: tuple[slice, ...], modality: int = 0) -> Perturbation:
    # One zero stands for all voxels.
    zeros = tuple(np.broadcast_to(np.float32(0), volume.shape) for volume in case.volumes)
    return Perturbation(regions=(Region(modality, box),), source=zeros)


def test_a_whole_pass_counts_what_the_layers_do(engine: IncrementalEvaluator, case: Case) -> None:
    convolutions, edge, channels = 0.0, EDGE, 4
    for stage in vgg_like.STAGES:
        for width in stage:
            convolutions += 2 * 27 * channels * width * edge**3
            channels = width
        edge //= 2
    assert convolutions <= engine.full_flops(case) <= 1.01 * convolutions


def test_an_occlusion_window_takes_the_operations_of_its_boxes(engine: IncrementalEvaluator, case: Case) -> None:
    # 11 voxels from 40 on; a convolution adds one on each side, a pooling halves outward.
    start, stop = 40, 51
    expected, channels = 0.0, 4
    for stage in vgg_like.STAGES:
        for width in stage:
            start, stop = start - 1, stop + 1
            expected += (2 * 27 * channels + 1) * width * (stop - start) ** 3
            channels = width
        start, stop = start // 2, -(-stop // 2)
        expected += 8 * channels * (stop - start) ** 3
    # What the changed box adds to the mean, and two linear layers.
    head = (stop - start) ** 3 * channels + 2 * (channels * 32 + 32 * 2) + 32
    found = engine.count_flops(case, [occlude(case, (slice(40, 51),) * 3)])
    assert found[0] == expected + head


def test_occlusion_windows_take_a_25th_of_a_whole_pass(engine: IncrementalEvaluator, case: Case) -> None:
    grid = SlidingWindow(shape=(EDGE,) * 3, window=(WINDOW,) * 3, stride=(STRIDE,) * 3)
    draws = np.random.default_rng(0)
    sample = [occlude(case, grid.box(int(place)), int(draws.integers(4))) for place in draws.integers(grid.places, size=300)]
    mean = engine.count_flops(case, sample).mean()
    assert engine.full_flops(case) / mean >= 25


def test_the_ratio_grows_with_the_volume(engine: IncrementalEvaluator, loaded: LoadedModel) -> None:
    ratios = []
    for edge in (32, 64, 96):
        case = ones(loaded, edge)
        middle = (slice(edge // 2 - 5, edge // 2 + 6),) * 3
        ratios.append(engine.full_flops(case) / engine.count_flops(case, [occlude(case, middle)])[0])
    assert ratios[0] < ratios[1] < ratios[2]


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
