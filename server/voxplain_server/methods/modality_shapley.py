"""The exact Shapley value of every modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from voxplain.errors import UnsupportedByModel
from voxplain.v1 import method_pb2

from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.features.region import Region
from voxplain_server.methods.baselines import baseline_volumes
from voxplain_server.methods.checked_cast import checked_cast
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.fingerprint import CaseContent, Fingerprints
from voxplain_server.methods.method import Remark, Setting, Violation
from voxplain_server.methods.parameter_defaults import zero_baseline
from voxplain_server.methods.plan import Block, Plan, cut
from voxplain_server.models.case import Volumes
from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits

MAX_MODALITIES = 10


@dataclass(frozen=True, slots=True, eq=False)
class ModalityPlan:
    """One perturbation for each coalition of modalities.

    Bit p of an evaluation's index tells whether player p is present: 0 is the baseline, the last one the case itself.

    Attributes:
        modalities: how many the model has.
        players: modalities that the baseline changes, ascending; the others are worth exactly zero.
        source: the baseline.
        base_score: score of the case.
        block_size: evaluations in one block.
    """

    modalities: int
    players: tuple[int, ...]
    source: Volumes
    base_score: float
    block_size: int

    @property
    def evaluations(self) -> int:
        """Two to the power of players."""
        return 1 << len(self.players)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Equal ranges; nothing can be told before all are done."""
        return cut(self.evaluations, self.block_size, least=self.evaluations)

    @property
    def features(self) -> int | None:
        """Modalities that are switched."""
        return len(self.players)

    @property
    def unchanged(self) -> npt.NDArray[np.bool_]:
        """The coalition of all players."""
        same = np.zeros(self.evaluations, dtype=np.bool_)
        same[-1] = True
        return same

    @property
    def distinct(self) -> bool:
        """Every coalition is met once."""
        return True

    def fingerprints(self, content: CaseContent) -> Fingerprints:
        """Sums over the absent modalities."""
        each = content.of_modalities(self.source)
        sums = np.zeros((self.evaluations, 2), np.uint64)
        for player, modality in enumerate(self.players):
            sums[np.arange(self.evaluations) >> player & 1 == 0] += each[modality]
        return sums

    def perturbation(self, index: int) -> Perturbation:
        """Absent modalities take their baseline, whole."""
        absent = [modality for player, modality in enumerate(self.players) if not index >> player & 1]
        regions = tuple(
            Region(modality=modality, box=tuple(slice(0, n) for n in self.source[modality].shape)) for modality in absent
        )
        return Perturbation(regions=regions, source=self.source)


class ModalityShapley:
    """Shapley, "A value for n-person games", 1953, with modalities as players; exact, all coalitions are met."""

    name = "modality-shapley"
    summary = "Gives every modality its exact Shapley value over all coalitions of modalities."
    citation = "Shapley 1953, doi 10.1515/9781400881970-018; Jin et al. 2022, doi 10.1016/j.media.2022.102684"
    assumptions: tuple[str, ...] = (
        "The baseline is what an absent modality looks like to the model.",
        "Coalitions of present and absent modalities look natural enough for the model to answer sensibly.",
    )
    signed = True
    shared_map = False
    needs_gradients = False

    def defaults(self, model: Model | None) -> method_pb2.ModalityShapley:
        """Zero baseline."""
        return method_pb2.ModalityShapley(baseline=zero_baseline())

    def violations(self, params: Message, model: Model) -> Sequence[Violation]:
        """The baseline is checked for all methods alike."""
        return ()

    def remarks(self, params: Message, model: Model, traits: ModelTraits) -> Sequence[Remark]:
        """Coalitions double with every modality, so there may be ten at most."""
        if len(model.modalities) <= MAX_MODALITIES:
            return ()
        return (Remark("TOO_MANY_MODALITIES", f"It needs all coalitions, so at most {MAX_MODALITIES} modalities.", fatal=True),)

    def count_evaluations(self, params: Message, shapes: Sequence[tuple[int, ...]]) -> int:
        """All coalitions of modalities."""
        return 1 << len(shapes)

    def plan(self, setting: Setting) -> Plan:
        """Count the players.

        Raises:
            voxplain.errors.UnsupportedByModel: TOO_MANY_MODALITIES.
            voxplain.errors.VoxplainError: the case lacks what the baseline needs.
        """
        params = checked_cast(setting.params, method_pb2.ModalityShapley)
        case = setting.case
        if len(case.volumes) > MAX_MODALITIES:
            raise UnsupportedByModel("TOO_MANY_MODALITIES", f"at most {MAX_MODALITIES} modalities have few enough coalitions")
        source = baseline_volumes(params.baseline, case, seed=setting.seed, key=setting.key, cache=setting.features)
        changed = [bool((ours != theirs).any()) for ours, theirs in zip(case.volumes, source, strict=True)]
        return ModalityPlan(
            modalities=len(case.volumes),
            players=tuple(int(modality) for modality in np.flatnonzero(changed)),
            source=source,
            base_score=setting.base_score,
            block_size=setting.block_size,
        )

    def estimate(self, plan: Plan, scores: npt.NDArray[np.float64], done: npt.NDArray[np.bool_]) -> Estimate:
        """Sum the gains over all coalitions; before all are done every player's value is NaN.

        phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! (f(S + i) - f(S)).
        """
        own = checked_cast(plan, ModalityPlan)
        saved = int((own.unchanged & done).sum())
        values = np.zeros(own.modalities)
        if not done.all():
            values[list(own.players)] = np.nan
            return Estimate(modality_values=values, saved=saved)
        coalitions = np.arange(own.evaluations)
        players = len(own.players)
        sizes = np.array([bin(coalition).count("1") for coalition in coalitions])
        weights = np.array([factorial(k) * factorial(max(players - k - 1, 0)) / factorial(players) for k in range(players + 1)])
        for player, modality in enumerate(own.players):
            without = coalitions[coalitions >> player & 1 == 0]
            values[modality] = np.sum(weights[sizes[without]] * (scores[without | 1 << player] - scores[without]))
        baseline_score = float(scores[0])
        return Estimate(
            modality_values=values,
            completeness_gap=own.base_score - baseline_score - float(values.sum()),
            baseline_score=baseline_score,
            saved=saved,
            signed=self.signed,
        )


METHOD = ModalityShapley()
