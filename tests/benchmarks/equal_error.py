"""Mean squared error of sampling estimators at equal evaluations, on games whose exact answer is known.

A game is the demo network on a demo case with twelve features: all 4,096 coalitions are scored once, which gives the exact
Shapley values and LIME's exact regression. Every estimator then plays on that table, over many seeds; evaluations are the
coalitions that it asks for. An error falls as one over the evaluations, so error times evaluations tells estimators apart, and
the ratio of these products is how many times fewer evaluations give the same error.

Two ways of cutting a case into twelve features. *modalities*: each modality is cut into three slabs, as the methods do whose
default is a grouping for each modality; these features interact strongly. *boxes*: boxes shared by all modalities, as the
methods do whose default is a shared grouping; these interact mostly in pairs, where antithetic designs shine. Real supervoxels
are more and smaller. Samples for each feature are those of the published study: 25 permutations, 300 coalitions for 50
features, 500 for 200.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr import KernelShap, Lime, ShapleyValueSampling
from captum.attr._core.lime import get_exp_kernel_similarity_function
from voxplain.v1 import explain_pb2, method_pb2
from voxplain_server.methods import all_methods
from voxplain_server.methods.game import Game, open_game
from voxplain_server.methods.method import PerturbationMethod, Setting
from voxplain_server.models.bundle import find_bundles
from voxplain_server.models.case_building import build_case
from voxplain_server.models.loading import load_model
from voxplain_server.models.targeting import resolve_target
from voxplain_server.models.traits import ModelTraits
from voxplain_server.workers.held_model import HeldModel

from tests.benchmarks.bounds import figure
from tests.benchmarks.figure import Figure
from tests.benchmarks.in_process import DEMO, MODELS, THREADS, _tensor, read_case
from tests.benchmarks.report import read_report
from tests.server.methods.table_game import TableGame

Numbers = npt.NDArray[np.float64]

SEEDS = 20
BATCH = 4
CASES = ("case-1", "case-2")
MODALITIES = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[56, 64, 19]), shared=False)
BOXES = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[28, 32, 19]), shared=True)
GROUPINGS: Mapping[str, method_pb2.FeatureGrouping] = {"modalities": MODALITIES, "boxes": BOXES}
PERMUTATIONS, GROUPS = 25, 6
KERNEL_SAMPLES, LIME_SAMPLES = 72, 30
LOWER_ERROR = 5.0
"""KernelShap and Lime at equal evaluations: at least so many times lower an error than Captum's."""


@dataclass(frozen=True, slots=True)
class Precision:
    """How exact an estimator is.

    Attributes:
        error: mean squared error over seeds and features.
        evaluations: coalitions asked for, on average.
    """

    error: float
    evaluations: float

    def times_fewer(self, other: Precision) -> float:
        """How many times fewer evaluations it needs than another for the same error."""
        return (other.error * other.evaluations) / (self.error * self.evaluations)


Run = Callable[[TableGame, int, int], tuple[Numbers, int]]
"""From a game, a number of samples and a seed to the values of the players and the evaluations taken."""


def measure() -> Iterator[Figure]:
    """Ours against Captum and shap, on every game; and Shapley values at equal error, where the cost ratio was measured."""
    for ours, theirs, samples in _rivals():
        ratios: dict[str, float] = {}
        for name, game in games().items():
            exact = game.lime() if "lime" in ours else game.shapley()
            mine, other = _precision(RUNS[ours], game, exact, samples[0]), _precision(RUNS[theirs], game, exact, samples[1])
            ratios[name] = mine.times_fewer(other)
            told = f"error {mine.error:.2g} at {mine.evaluations:.0f} evaluations against {other.error:.2g} at"
            yield figure(f"equal_error/{ours}_{name}_vs_{theirs}", ratios[name], "x", f"{told} {other.evaluations:.0f}")
        overall = float(np.exp(np.mean(np.log(list(ratios.values())))))
        bound = {"leverage_shap": LOWER_ERROR, "fold_over_lime": LOWER_ERROR}.get(ours) if "captum" in theirs else None
        if theirs.startswith("shap_"):
            bound = 1.0
        yield Figure(f"equal_error/{ours}_vs_{theirs}", overall, "x", bound, "min", f"geometric mean of {len(ratios)} games")
        if ours == "antithetic_shapley":
            yield from _at_equal_error(ratios)


def _at_equal_error(ratios: Mapping[str, float]) -> Iterator[Figure]:
    """Times fewer evaluations by times cheaper evaluations. The method's default is a grouping for each modality."""
    fewer = float(np.exp(np.mean([np.log(ratio) for name, ratio in ratios.items() if name.startswith("modalities")])))
    known = read_report()
    for allocator in ("default", "tuned"):
        cheaper = known.get(f"limit/shapley_same_permutations/vs_captum_{allocator}")
        if cheaper is not None:
            told = f"{cheaper.value:.3g} times cheaper permutations, {fewer:.3g} times fewer (antithetic-shapley, modalities)"
            yield figure(f"limit/shapley_equal_error/vs_captum_{allocator}", cheaper.value * fewer, "x", told)


def _rivals() -> Iterator[tuple[str, str, tuple[int, int]]]:
    yield "antithetic_shapley", "captum_shapley", (GROUPS, PERMUTATIONS)
    yield "leverage_shap", "captum_kernel_shap", (KERNEL_SAMPLES, KERNEL_SAMPLES)
    yield "leverage_shap", "shap_kernel_explainer", (KERNEL_SAMPLES, KERNEL_SAMPLES)
    yield "kernel_shap", "captum_kernel_shap", (KERNEL_SAMPLES, KERNEL_SAMPLES)
    yield "fold_over_lime", "captum_lime", (LIME_SAMPLES, LIME_SAMPLES)
    yield "lime", "captum_lime", (LIME_SAMPLES, LIME_SAMPLES)


def _precision(run: Run, game: TableGame, exact: Numbers, n: int) -> Precision:
    found = [run(game, n, seed) for seed in range(SEEDS)]
    error = float(np.mean([(values - exact) ** 2 for values, _ in found]))
    return Precision(error, float(np.mean([evaluations for _, evaluations in found])))


@cache
def games() -> dict[str, TableGame]:
    """The games by name."""
    (place,) = find_bundles(MODELS)
    held = HeldModel(load_model(place), threads=THREADS)
    return {f"{kind}_{name}": score_all(held, name, grouping) for kind, grouping in GROUPINGS.items() for name in CASES}


def score_all(held: HeldModel, name: str, grouping: method_pb2.FeatureGrouping) -> TableGame:
    """Score all coalitions of a demo case's features under a zero baseline: 4,096 passes for twelve."""
    case = build_case(held.model, [_tensor(*each) for each in read_case(DEMO / "cases" / name).items()], donors=False).case
    target = resolve_target(held.model, explain_pb2.Target(), held.evaluator.answer(case), None)
    setting = Setting(
        case=case,
        score=target.score,
        base_score=target.value,
        params=method_pb2.KernelShap(),
        seed=0,
        key=name,
        traits=ModelTraits(has_relu=True, twin_parity=0.0),
        block_size=1,
    )
    game = open_game(setting, method_pb2.Baseline(zero=method_pb2.ZeroBaseline()), grouping)
    players = np.arange(game.players.size)
    perturbations = [game.without(players[(number >> players & 1) == 0]) for number in range(2**players.size)]
    scores = held.evaluator.scores(case, target.score, perturbations, batch_size=BATCH, cancelled=lambda: False)
    return TableGame(scores, _energies(game, case.volumes))


def _energies(game: Game, volumes: tuple[npt.NDArray[np.float32], ...]) -> Numbers:
    """(players,) Sums of squares, from which LIME's cosine distances follow."""
    total = np.zeros(game.features.count)
    for labels, volume in zip(game.features.labels, volumes, strict=True):
        total += np.bincount(labels.ravel(), weights=volume.ravel().astype(np.float64) ** 2, minlength=total.size)
    return total[game.players]


def _ours(name: str, parameter: str) -> Run:
    method = all_methods()[name]
    if not isinstance(method, PerturbationMethod):
        raise TypeError(name)

    def run(game: TableGame, n: int, seed: int) -> tuple[Numbers, int]:
        params = type(method.defaults(None))()
        setattr(params, parameter, n)
        explained = game.explain(method, params, seed=seed)
        found = method.estimate(explained.plan, explained.scores, explained.all_done).by_feature
        if found is None:
            raise TypeError(name)
        # The unperturbed case is one evaluation, too, which other methods of a call share.
        return found.values[1:], explained.evaluated + 1

    return run


class CountingTable(torch.nn.Module):
    """A game as a network: (batch, players), of which those that are not zero are present, to (batch,)."""

    def __init__(self, game: TableGame) -> None:
        super().__init__()
        self.evaluations = 0
        self._scores = torch.from_numpy(game.scores)
        self._places = 1 << torch.arange(game.players)

    def forward(self, present: torch.Tensor) -> torch.Tensor:
        """The scores of the coalitions."""
        self.evaluations += len(present)
        return self._scores[((present != 0) * self._places).sum(dim=1)]


def _captum(kind: str) -> Run:
    def run(game: TableGame, n: int, seed: int) -> tuple[Numbers, int]:
        torch.manual_seed(seed)
        np.random.seed(seed)
        table = CountingTable(game)
        case = torch.from_numpy(np.sqrt(game.energies))[None]
        if kind == "shapley":
            values = ShapleyValueSampling(table).attribute(case, n_samples=n)
        elif kind == "kernel_shap":
            values = KernelShap(table).attribute(case, n_samples=n)
        else:
            cosine = get_exp_kernel_similarity_function("cosine", kernel_width=1.0)
            lime = Lime(table, interpretable_model=SkLearnLinearRegression(), similarity_func=cosine)
            values = lime.attribute(case, n_samples=n)
        return values[0].numpy().astype(np.float64), table.evaluations

    return run


def _kernel_explainer(game: TableGame, n: int, seed: int) -> tuple[Numbers, int]:
    """shap's KernelExplainer, which draws pairs, without its choice of features; both ends are beside its samples."""
    import shap

    table = CountingTable(game)

    def model(rows: Numbers) -> Numbers:
        answers: Numbers = table(torch.from_numpy(np.asarray(rows))).numpy()
        return answers

    np.random.seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explainer = shap.KernelExplainer(model, np.zeros((1, game.players)))
        values = explainer.shap_values(np.sqrt(game.energies)[None], nsamples=n - 2, l1_reg=False, silent=True)
    return np.asarray(values, dtype=np.float64).reshape(-1), table.evaluations


RUNS: dict[str, Run] = {
    "antithetic_shapley": _ours("antithetic-shapley", "groups"),
    "leverage_shap": _ours("leverage-shap", "samples"),
    "kernel_shap": _ours("kernel-shap", "samples"),
    "fold_over_lime": _ours("fold-over-lime", "samples"),
    "lime": _ours("lime", "samples"),
    "captum_shapley": _captum("shapley"),
    "captum_kernel_shap": _captum("kernel_shap"),
    "captum_lime": _captum("lime"),
    "shap_kernel_explainer": _kernel_explainer,
}
