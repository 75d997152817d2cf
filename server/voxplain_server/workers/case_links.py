"""Which evaluations of a call are the same perturbed case, so that each is computed once.

Decided by the plans alone, before anything is evaluated: of equal cases the first one, in the order of the methods and then of
the plan, is computed, and the others take its score, whichever worker comes to which first. A later method relies on an earlier
one only for blocks that are computed whatever the budget finds: those before its first comparison with the target error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from voxplain.v1 import explain_pb2

from voxplain_server.methods.fingerprint import CaseContent, FingerprintedPlan
from voxplain_server.methods.plan import Block, Plan
from voxplain_server.models.case import Volumes
from voxplain_server.workers.block_desk import blocks_within, review_points

_NOWHERE = -1
_KEY = np.dtype([("first", "<u8"), ("second", "<u8")])


@dataclass(frozen=True, slots=True, eq=False)
class CaseLinks:
    """Where the scores of one method's evaluations come from.

    Attributes:
        method: (evaluations,) index of the method that computes each; -1: this one does, or nothing needs to be computed.
        evaluation: (evaluations,) number of it in that method's plan.
    """

    method: npt.NDArray[np.int32]
    evaluation: npt.NDArray[np.int64]

    @property
    def taken(self) -> npt.NDArray[np.bool_]:
        """(evaluations,) True where the score is another evaluation's."""
        return np.asarray(self.method != _NOWHERE, dtype=np.bool_)

    def taken_from(self, methods: Sequence[int]) -> npt.NDArray[np.bool_]:
        """(evaluations,) True where the score is one of these methods'."""
        return np.asarray(np.isin(self.method, np.array(methods, np.int32)) & self.taken, dtype=np.bool_)


def no_links(evaluations: int) -> CaseLinks:
    """Every evaluation for itself."""
    return CaseLinks(np.full(evaluations, _NOWHERE, np.int32), np.zeros(evaluations, np.int64))


class LinkBook:
    """Takes the plans of a call in the order of its methods and links each to those before.

    Args:
        volumes: the unperturbed case.
        budget: the call's.
    """

    def __init__(self, volumes: Volumes, budget: explain_pb2.Budget) -> None:
        self._content = CaseContent(volumes)
        self._budget = budget
        self._waiting: tuple[int, FingerprintedPlan, Sequence[Block]] | None = None
        self._keys = np.zeros(0, _KEY)
        self._method = np.zeros(0, np.int32)
        self._evaluation = np.zeros(0, np.int64)

    def link(self, index: int, plan: Plan, blocks: Sequence[Block]) -> CaseLinks:
        """Link the plan of one method.

        Args:
            index: of the method in the call; larger than those before.
            plan: its plan; one without fingerprints shares nothing.
            blocks: how the plan is cut.
        """
        if not hasattr(plan, "fingerprints"):
            return no_links(plan.evaluations)
        own = cast(FingerprintedPlan, plan)
        if own.distinct and self._waiting is None and self._keys.size == 0:
            # Reading every voxel is for nothing as long as there is nothing to compare with.
            self._waiting = (index, own, blocks)
            return no_links(plan.evaluations)
        if self._waiting is not None:
            first, self._waiting = self._waiting, None
            self._link(*first)
        return self._link(index, own, blocks)

    def _link(self, index: int, plan: FingerprintedPlan, blocks: Sequence[Block]) -> CaseLinks:
        links, known = no_links(plan.evaluations), self._keys.size
        changing = np.flatnonzero(~plan.unchanged)
        prints = np.ascontiguousarray(plan.fingerprints(self._content)[changing])
        keys = np.concatenate([self._keys, prints.view(_KEY).reshape(-1)])
        _, firsts, which = np.unique(keys, return_index=True, return_inverse=True)
        found = firsts[which[known:]]
        alone = found == known + np.arange(changing.size)
        elsewhere, here = found < known, (found >= known) & ~alone
        links.method[changing[elsewhere]] = self._method[found[elsewhere]]
        links.evaluation[changing[elsewhere]] = self._evaluation[found[elsewhere]]
        links.method[changing[here]] = index
        links.evaluation[changing[here]] = changing[found[here] - known]
        offered = alone & _certain(plan.evaluations, blocks, self._budget)[changing]
        self._keys = np.concatenate([self._keys, keys[known:][offered]])
        self._method = np.concatenate([self._method, np.full(int(offered.sum()), index, np.int32)])
        self._evaluation = np.concatenate([self._evaluation, changing[offered]])
        return links


def _certain(evaluations: int, blocks: Sequence[Block], budget: explain_pb2.Budget) -> npt.NDArray[np.bool_]:
    """(evaluations,) those that are computed in every call of this budget that is not stopped from outside."""
    sure = len(blocks)
    if budget.HasField("max_evaluations"):
        sure = blocks_within([each.start for each in blocks], [each.stop for each in blocks], budget.max_evaluations)
    if budget.HasField("target_standard_error"):
        sure = next(iter(review_points(sure)), sure)
    certain = np.zeros(evaluations, np.bool_)
    for block in blocks[:sure]:
        certain[block.start : block.stop] = True
    return certain
