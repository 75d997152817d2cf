"""A model that is a formula, so that methods can be tested without a network.

`FakeEvaluator` keeps every promise of engines.engine.Evaluator; its answer is a function of the perturbed volumes, computed
in float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from voxplain.errors import Cancelled
from voxplain.v1 import method_pb2
from voxplain.volume import Geometry
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.methods.method import PerturbationMethod, Setting
from voxplain_server.methods.plan import Plan
from voxplain_server.methods.resolve import resolve_method
from voxplain_server.models.case import Case, Volumes
from voxplain_server.models.model import Activation, InputSpec, ModalitySpec, Model, OutputKind, OutputSpec
from voxplain_server.models.score import Score
from voxplain_server.models.traits import ModelTraits

Formula = Callable[[Sequence[npt.NDArray[np.float32]]], float]
"""From the volumes, one for each modality, to the model's one output."""

OUTPUT = OutputSpec(name="out", score_name="out", kind=OutputKind.SCALAR, activation=Activation.NONE, classes=())
SCORE = Score(output=OUTPUT, weights=((0, 1.0),))
NAMES = ("t1", "t1c", "t2", "flair", "dwi", "adc", "pd", "swi", "pwi", "mra", "ct", "pet")


@dataclass(slots=True, eq=False)
class FakeEvaluator:
    """Scores perturbed cases by a formula.

    Attributes:
        formula: the model.
        evaluated: perturbations scored so far.
    """

    formula: Formula
    name: str = "fake"
    evaluated: int = field(default=0, init=False)

    def answer(self, case: Case) -> npt.NDArray[np.float32]:
        """(1, 1)."""
        return np.array([[self.formula(case.volumes)]], dtype=np.float32)

    def scores(
        self,
        case: Case,
        score: Score,
        perturbations: Sequence[Perturbation],
        *,
        batch_size: int,
        cancelled: Callable[[], bool],
    ) -> npt.NDArray[np.float64]:
        """One formula after another, on one copy of the case that is changed and restored."""
        workspace = [volume.copy() for volume in case.volumes]
        answers = np.empty((len(perturbations), 1), dtype=np.float64)
        for start in range(0, len(perturbations), batch_size):
            if cancelled():
                raise Cancelled("CANCELLED", "the client left")
            for index in range(start, min(start + batch_size, len(perturbations))):
                perturbations[index].write(workspace)
                answers[index, 0] = self.formula(workspace)
                perturbations[index].restore(workspace, case.volumes)
        self.evaluated += len(perturbations)
        return score.of(answers) if len(perturbations) else np.empty(0)


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """A plan carried out whole.

    Attributes:
        method: what planned it.
        setting: for what.
        plan: the plan.
        scores: (evaluations,).
        evaluated: evaluations that reached the model.
    """

    method: PerturbationMethod
    setting: Setting
    plan: Plan
    scores: npt.NDArray[np.float64]
    evaluated: int

    @property
    def all_done(self) -> npt.NDArray[np.bool_]:
        """(evaluations,) True."""
        return np.ones(self.plan.evaluations, dtype=np.bool_)


def fake_model(shapes: Sequence[tuple[int | None, ...]], *, late: bool = False) -> Model:
    """A model of modalities of these shapes; its one output is a scalar."""
    names = NAMES[: len(shapes)]
    inputs = tuple(InputSpec(name=name, modalities=(name,)) for name in names)
    return Model(
        name="fake",
        version="1",
        folder=Path(),
        onnx_path=Path("model.onnx"),
        digest="0" * 64,
        metadata_digest="0" * 64,
        description="A formula.",
        modalities=tuple(
            ModalitySpec(name=name, input_name=name if late else "image", channel=0 if late else index, shape=tuple(shape))
            for index, (name, shape) in enumerate(zip(names, shapes, strict=True))
        ),
        inputs=inputs if late else (InputSpec(name="image", modalities=names),),
        output=OUTPUT,
        batched=True,
    )


def fake_case(
    shapes: Sequence[tuple[int, ...]] = ((8, 8, 8), (8, 8, 8)), *, seed: int = 0, donors: int = 0, late: bool = False
) -> Case:
    """A case of smooth ellipsoids with noise on an exactly zero background, and background cases like it."""
    rng = np.random.default_rng(seed)
    return Case(
        model=fake_model(shapes, late=late),
        volumes=_ellipsoids(shapes, rng),
        grids=tuple(Geometry(shape=tuple(shape)) for shape in shapes),
        donors=tuple(_ellipsoids(shapes, rng) for _ in range(donors)),
    )


def _ellipsoids(shapes: Sequence[tuple[int, ...]], rng: np.random.Generator) -> Volumes:
    volumes = []
    for shape in shapes:
        axes = np.meshgrid(*[np.linspace(-1.0, 1.0, n) if n > 1 else [0.0] for n in shape], indexing="ij")
        radius = np.sqrt(sum(axis**2 for axis in axes))
        smooth = np.sin(3.0 * axes[0] + rng.random()) + 0.3 * rng.standard_normal(shape)
        volume = np.where(radius < 0.9, smooth, 0.0).astype(np.float32)
        volume.flags.writeable = False
        volumes.append(volume)
    return tuple(volumes)


def linear_formula(shapes: Sequence[tuple[int, ...]], *, seed: int = 1) -> Formula:
    """A seeded weighted sum of all voxels."""
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal(shape) for shape in shapes]

    def formula(volumes: Sequence[npt.NDArray[np.float32]]) -> float:
        return float(sum((w * v.astype(np.float64)).sum() for w, v in zip(weights, volumes, strict=True)))

    return formula


def interaction_formula(shapes: Sequence[tuple[int, ...]], *, seed: int = 1) -> Formula:
    """Smooth, with interactions between voxels and between modalities of any shape: weighted sums, squashed and multiplied."""
    rng = np.random.default_rng(seed)
    filters = [[rng.standard_normal(shape) / np.sqrt(np.prod(shape)) for shape in shapes] for _ in range(4)]

    def formula(volumes: Sequence[npt.NDArray[np.float32]]) -> float:
        sums = [sum((w * v.astype(np.float64)).sum() for w, v in zip(each, volumes, strict=True)) for each in filters]
        squashed = np.tanh(np.array(sums, dtype=np.float64))
        return float(squashed.sum() + 2.0 * squashed[0] * squashed[1] - 1.5 * squashed[1] * squashed[2] * squashed[3])

    return formula


def fake_setting(
    method: PerturbationMethod,
    case: Case,
    formula: Formula,
    params: Message | None = None,
    *,
    seed: int = 0,
    block_size: int = 16,
) -> Setting:
    """What a method is given, with its parameters resolved as the server resolves them.

    Raises:
        ValueError: the parameters are refused.
    """
    field_name = method.name.replace("-", "_")
    asked = method_pb2.Method()
    getattr(asked, field_name).SetInParent()
    if params is not None:
        getattr(asked, field_name).MergeFrom(params)
    resolved, violations = resolve_method(asked, case.model, shapes=[volume.shape for volume in case.volumes])
    if violations:
        raise ValueError("; ".join(f"{each.field}: {each.reason}" for each in violations))
    return Setting(
        case=case,
        score=SCORE,
        base_score=formula(case.volumes),
        params=getattr(resolved, field_name),
        seed=seed,
        key=resolved.key,
        traits=ModelTraits(background_cases=len(case.donors)),
        block_size=block_size,
    )


def explain(
    method: PerturbationMethod,
    case: Case,
    formula: Formula,
    params: Message | None = None,
    *,
    seed: int = 0,
    block_size: int = 16,
) -> Explained:
    """Plan, and evaluate block by block as a worker does: what changes nothing never reaches the model."""
    setting = fake_setting(method, case, formula, params, seed=seed, block_size=block_size)
    plan = method.plan(setting)
    evaluator = FakeEvaluator(formula)
    scores = np.full(plan.evaluations, setting.base_score)
    for block in plan.blocks:
        changing = [index for index in range(block.start, block.stop) if not plan.unchanged[index]]
        scores[changing] = evaluator.scores(
            case, SCORE, [plan.perturbation(index) for index in changing], batch_size=3, cancelled=lambda: False
        )
    return Explained(method=method, setting=setting, plan=plan, scores=scores, evaluated=evaluator.evaluated)


def brute_force_shapley(players: int, game: Callable[[frozenset[int]], float]) -> npt.NDArray[np.float64]:
    """Shapley values from their definition: the mean gain over all orders of the players, one after another."""
    known: dict[frozenset[int], float] = {}

    def worth(coalition: frozenset[int]) -> float:
        if coalition not in known:
            known[coalition] = game(coalition)
        return known[coalition]

    gains = np.zeros(players)
    orders = 0
    for order in itertools.permutations(range(players)):
        orders += 1
        present: frozenset[int] = frozenset()
        for player in order:
            gains[player] += worth(present | {player}) - worth(present)
            present |= {player}
    return gains / orders
