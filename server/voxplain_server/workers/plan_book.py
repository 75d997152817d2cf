"""The plans of one call on the compute side, linked to each other, and the scores as they are read through the links."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from voxplain.errors import Cancelled, InternalFault
from voxplain.v1 import explain_pb2

from voxplain_server.methods.method import Method, PerturbationMethod
from voxplain_server.models.case import Volumes
from voxplain_server.workers.case_links import LinkBook
from voxplain_server.workers.planned import Planned
from voxplain_server.workers.score_board import ScoreBoard

Scores = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class PlanBook:
    """Makes plans when they are first asked for, those of earlier methods before: their evaluations may be shared.

    Args:
        spec: the call.
        volumes: the unperturbed case.
        method: the method at an index.
        plan: plans the method at an index.
    """

    def __init__(
        self,
        spec: explain_pb2.ExplainSpec,
        volumes: Volumes,
        *,
        method: Callable[[int], Method],
        plan: Callable[[int, PerturbationMethod], Planned],
    ) -> None:
        self._spec = spec
        self._method = method
        self._make = plan
        self._links = LinkBook(volumes, spec.budget)
        self._made: list[Planned | Exception | None] = []
        self._adopted: dict[tuple[int, int], Scores] = {}

    def plan(self, index: int) -> Planned:
        """The plan of a method.

        Raises:
            voxplain.errors.VoxplainError: this case does not allow it.
        """
        while len(self._made) <= index:
            self._made.append(self._plan(len(self._made)))
        made = self._made[index]
        if made is None:
            raise InternalFault("NO_PLAN", "the front asked for blocks of a method that has none")
        if isinstance(made, Exception):
            raise made
        return made

    def made(self, index: int) -> Planned | None:
        """The plan of a method, where it was made."""
        made = self._made[index] if index < len(self._made) else None
        return made if isinstance(made, Planned) else None

    def savings(self, index: int, within: Flags | None = None, *, failed: Sequence[int] = ()) -> list[explain_pb2.Saving]:
        """Evaluations that need no pass, by reason.

        Args:
            index: of the method.
            within: (evaluations,) those that are counted; None: all.
            failed: methods that nothing was taken from.
        """
        planned = self.plan(index)
        counted = ~planned.links.taken_from(failed)
        if within is not None:
            counted &= within
        found = [(explain_pb2.Saving.REASON_UNCHANGED, "", int((planned.plan.unchanged & counted).sum()))]
        for source, count in sorted(Counter(planned.links.method[planned.links.taken & counted].tolist()).items()):
            own = source == index
            reason = explain_pb2.Saving.REASON_REPEATED if own else explain_pb2.Saving.REASON_SHARED
            found.append((reason, "" if own else self._spec.methods[source].key, count))
        return [explain_pb2.Saving(reason=reason, method_key=key, evaluations=count) for reason, key, count in found if count]

    def read(self, index: int, board: ScoreBoard, *, first_blocks: int | None, failed: Sequence[int]) -> tuple[Scores, Flags]:
        """The scores of a method, (evaluations,), and which of them are there: an evaluation whose score is another's is
        there when both are done.

        Args:
            index: of the method.
            board: the call's.
            first_blocks: look at so many blocks only; None: at all.
            failed: methods whose scores do not count; what was taken from them must have been adopted.
        """
        planned = self.plan(index)
        # A copy, flags first: the front goes on setting flags, and a flag is set only after its scores are there.
        done = board.done(index).copy()
        if first_blocks is not None:
            within = np.zeros_like(done)
            for block in planned.blocks[:first_blocks]:
                within[block.start : block.stop] = True
            done &= within
        links = planned.links
        for source in np.unique(links.method[links.taken]).tolist():
            here = np.flatnonzero(links.method == source)
            there = links.evaluation[here]
            done[here] &= False if source in failed else board.done(source)[there]
        scores = board.scores(index).copy()
        for source in np.unique(links.method[links.taken]).tolist():
            here = np.flatnonzero(links.method == source)
            scores[here] = board.scores(source)[links.evaluation[here]]
        for number, block in enumerate(planned.blocks):
            adopted = self._adopted.get((index, number))
            if adopted is not None and (first_blocks is None or number < first_blocks):
                rows = self.orphans(index, number, failed)
                scores[rows], done[rows] = adopted, board.done(index)[block.start]
        return np.where(done, scores, np.nan), done

    def orphans(self, index: int, block: int, failed: Sequence[int]) -> npt.NDArray[np.int64]:
        """Evaluations of one block whose scores were to come from methods that failed."""
        planned = self.plan(index)
        place = planned.blocks[block]
        return place.start + np.flatnonzero(planned.links.taken_from(failed)[place.start : place.stop])

    def adopt(
        self, index: int, board: ScoreBoard, *, failed: Sequence[int], evaluate: Callable[[npt.NDArray[np.int64]], Scores]
    ) -> int:
        """Evaluate what failed methods owe to one, block by block, so that it does not matter when it is asked for.

        Returns:
            How many evaluations went through the model.
        """
        evaluated = 0
        for number, block in enumerate(self.plan(index).blocks):
            rows = self.orphans(index, number, failed)
            if rows.size and board.done(index)[block.start] and (index, number) not in self._adopted:
                self._adopted[index, number] = evaluate(rows)
                evaluated += int(rows.size)
        return evaluated

    def clear(self) -> None:
        """Let go of everything."""
        self._made.clear()
        self._adopted.clear()

    def _plan(self, index: int) -> Planned | Exception | None:
        method = self._method(index)
        if not isinstance(method, PerturbationMethod):
            return None
        try:
            planned = self._make(index, method)
        except Cancelled:
            raise
        except Exception as error:
            return error
        return planned.linked(self._links.link(index, planned.plan, planned.blocks))
