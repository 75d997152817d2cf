"""Shapley walks on the engine that carries activations from step to step, against Captum on whole passes."""

from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import torch
from voxplain_server.features.feature_set import FeatureSet
from voxplain_server.graph.graph_reader import read_graph
from voxplain_server.graph.twin import build_twin
from voxplain_server.methods.antithetic_shapley import METHOD as ANTITHETIC
from voxplain_server.methods.game import Game
from voxplain_server.methods.shapley_value_sampling import METHOD
from voxplain_server.methods.walk_plan import WalkPlan
from voxplain_server.models.model import InputSpec

from tests.server.engines.incremental_cases import Setting, setting
from tests.server.graph.comparing import read
from tests.server.graph.conftest import Exported
from tests.server.graph.conftest import exported as exported
from tests.server.graph.conftest import one_thread as one_thread
from tests.server.graph.networks import NETWORKS

WALKS = 4


@pytest.fixture(scope="module")
def found(exported: Exported) -> Setting:
    network = NETWORKS["vgg"]
    graph = read_graph(read(exported("vgg", dynamo=False)))
    shape = network.input_shapes[0]
    spec = InputSpec("input_0", tuple(f"modality {channel}" for channel in range(shape[1])))
    return setting(graph, [spec], [shape[2:]], output_shape=tuple(network.build()(*network.inputs()).shape))


@pytest.fixture
def plan(found: Setting) -> WalkPlan:
    """Four walks over halves of each modality."""
    labels, count = [], 0
    for volume in found.case.volumes:
        half = np.zeros(volume.shape, dtype=np.int32) + count
        half[volume.shape[0] // 2 :] += 1
        labels.append(half)
        count += 2
    source = tuple(np.zeros_like(volume) for volume in found.case.volumes)
    base = float(found.exact([_game(labels, count, source, 0.0).without(np.array([], dtype=int))])[0])
    return WalkPlan(game=_game(labels, count, source, base), walks=WALKS, seed=3, key="walks", block_size=64)


def _game(labels: list[np.ndarray], count: int, source: tuple[np.ndarray, ...], base: float) -> Game:
    features = FeatureSet(labels=tuple(labels), count=count, shared=False)
    return Game(features=features, players=np.arange(count), source=source, base_score=base)


def _carried(found: Setting, plan: WalkPlan) -> np.ndarray:
    """Scores as a worker gets them: block by block, what changes nothing left out."""
    scores = np.full(plan.evaluations, plan.game.base_score)
    for block in plan.blocks:
        changed = [index for index in range(block.start, block.stop) if not plan.unchanged[index]]
        scores[changed] = found.incremental.scores(
            found.case, found.score, [plan.perturbation(index) for index in changed], batch_size=1, cancelled=lambda: False
        )
    return scores


@pytest.mark.usefixtures("captum_in_float64")
def test_given_captums_permutations_it_is_captums_estimate(
    found: Setting, plan: WalkPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    captums = captum.attr.ShapleyValueSampling(_network(found))
    torch.manual_seed(11)
    drawn = [list(order) for order in captums.permutation_generator(plan.players, WALKS)]
    monkeypatch.setattr(WalkPlan, "order", lambda self, walk: np.array(drawn[walk], dtype=np.int64))
    done = np.ones(plan.evaluations, dtype=np.bool_)
    values = METHOD.estimate(plan, _carried(found, plan), done).by_feature
    assert values is not None
    torch.manual_seed(11)
    case = torch.from_numpy(np.stack(found.case.volumes)).double()[None]
    mask = torch.from_numpy(np.stack(plan.game.features.labels).astype(np.int64))[None]
    with torch.no_grad():
        theirs = captums.attribute(case, feature_mask=mask, n_samples=WALKS)[0].numpy()
    ours = np.stack(values.features.paint(values.values))
    # Captum keeps its sums in float32.
    assert np.abs(ours - theirs).max() <= 1e-6 * np.abs(theirs).max()


def test_an_antithetic_group_is_carried_as_one_chain_and_answers_as_whole_passes(found: Setting, plan: WalkPlan) -> None:
    group = WalkPlan(game=plan.game, walks=WALKS, seed=3, key="group", block_size=8, antithetic=True)
    (block,) = group.blocks
    assert block.chain
    perturbations = [group.perturbation(index) for index in range(group.evaluations)]
    whole, carried = found.exact(perturbations), _carried(found, group)
    assert np.abs(carried - whole).max() <= 1e-9 * np.abs(whole - whole[-1]).max()
    changing = [each for each, same in zip(perturbations, group.unchanged, strict=True) if not same]
    planned = found.incremental.planned_flops(found.case, changing).sum()
    assert planned < found.incremental.count_flops(found.case, changing).sum()
    estimate = ANTITHETIC.estimate(group, carried, np.ones(group.evaluations, dtype=np.bool_))
    assert estimate.completeness_gap == pytest.approx(0.0, abs=1e-9)


def _network(found: Setting) -> torch.nn.Module:
    """The score of a case, (batch, modalities, *spatial) to (batch,)."""
    twin = build_twin(found.graph, dtype=torch.float64)

    class Scored(torch.nn.Module):
        def forward(self, case: torch.Tensor) -> torch.Tensor:
            answers = twin(case.double())
            answers = answers[0] if isinstance(answers, (tuple, list)) else answers
            return torch.stack([weight * answers[:, index] for index, weight in found.score.weights]).sum(dim=0)

    return Scored()
