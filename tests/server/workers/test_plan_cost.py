"""What a plan is said to take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from voxplain_server.engines.incremental_engine import IncrementalEvaluator
from voxplain_server.engines.onnx_engine import OnnxEngine
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.features.region import Region
from voxplain_server.graph.graph_reader import read_graph
from voxplain_server.methods.plan import Block, cut
from voxplain_server.models.engine_choice import EngineChoice
from voxplain_server.models.traits import ModelTraits
from voxplain_server.workers.plan_cost import estimate_cost

from tests.server.engines.tiny_models import TinyModel, early

RATES = EngineChoice("incremental-cpu", (), "", dense_seconds=0.1, incremental_seconds=0.04, share=0.2)


@dataclass(frozen=True, slots=True, eq=False)
class FewPerturbations:
    """A plan of what it is given."""

    perturbations: tuple[Perturbation, ...]
    unchanged: npt.NDArray[np.bool_]
    features: int | None = None

    @property
    def evaluations(self) -> int:
        return len(self.perturbations)

    @property
    def blocks(self) -> tuple[Block, ...]:
        return cut(self.evaluations, 8)

    def perturbation(self, index: int) -> Perturbation:
        return self.perturbations[index]


@pytest.fixture
def tiny(tmp_path: Path) -> TinyModel:
    return early(tmp_path)


@pytest.fixture
def engine(tiny: TinyModel) -> IncrementalEvaluator:
    return IncrementalEvaluator(read_graph(tiny.proto), tiny.model, OnnxEngine(tiny.proto, tiny.model, threads=1), threads=1)


def boxes(tiny: TinyModel, edge: int | None) -> Perturbation:
    """One box, or everything."""
    volume = tiny.case.volumes[0]
    box = tuple(slice(0, size if edge is None else edge) for size in volume.shape)
    source = tuple(volume + 1 for volume in tiny.case.volumes)
    modalities = range(len(tiny.case.volumes)) if edge is None else (0,)
    return Perturbation(tuple(Region(modality, box) for modality in modalities), source)


def test_an_evaluation_by_a_whole_pass_costs_that_pass(tiny: TinyModel) -> None:
    plan = FewPerturbations((boxes(tiny, 2),) * 4, np.array([False, True, False, False]))
    cost = estimate_cost(plan, tiny.case, ModelTraits(), incremental=None, pass_seconds=0.5)
    assert (cost.share, cost.seconds_each) == (1.0, 0.5)


def test_small_boxes_cost_their_share_at_the_measured_rate(tiny: TinyModel, engine: IncrementalEvaluator) -> None:
    plan = FewPerturbations((boxes(tiny, 2),) * 4, np.zeros(4, np.bool_))
    cost = estimate_cost(plan, tiny.case, ModelTraits(engine_choice=RATES), incremental=engine, pass_seconds=0.5)
    (share,) = engine.count_flops(tiny.case, [boxes(tiny, 2)]) / engine.full_flops(tiny.case)
    assert cost.share == pytest.approx(share)
    assert 0 < share < 0.25
    assert cost.seconds_each == pytest.approx(0.5 * share * 2)


def test_what_reaches_everything_costs_a_whole_pass(tiny: TinyModel, engine: IncrementalEvaluator) -> None:
    plan = FewPerturbations((boxes(tiny, None),) * 3, np.zeros(3, np.bool_))
    cost = estimate_cost(plan, tiny.case, ModelTraits(engine_choice=RATES), incremental=engine, pass_seconds=0.5)
    assert (cost.share, cost.seconds_each) == (1.0, 0.5)
