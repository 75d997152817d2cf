"""One method of a running call, as the front keeps its books: what is planned, done, and to be done next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration
from voxplain.v1 import explain_pb2
from voxplain.worker.v1 import worker_pb2

from voxplain_server.workers.block_desk import BlockDesk, blocks_within, review_points
from voxplain_server.workers.job import MapReady


@dataclass(frozen=True, slots=True)
class Ending:
    """How a method ends.

    Attributes:
        outcome: as in the contract.
        reason: code, empty for COMPLETED.
        description: the same for people.
        first_blocks: the map rests on so many blocks from the first on; None: on all that are done.
    """

    outcome: explain_pb2.Outcome.ValueType
    reason: str = ""
    description: str = ""
    first_blocks: int | None = None


@dataclass(slots=True, eq=False)
class MethodRun:
    """The books of one method.

    Attributes:
        index: place in the spec.
        key, name: of the run, and of the method.
        outline: what the lead planned.
        budget: the call's.
        desk: its blocks; None for gradient methods.
        passes: gradient passes done.
        asked: what the lead was asked to make of the scores and has not answered; for a gradient method WANT_FINAL.
        reviewing: what was asked is a review.
        chosen: how it ends, once the final map was asked for or it was told to stop.
        interrupted: whoever computes for it was told to stop.
        failure: set when a worker could not go on with it.
        reviewed: how many review points were looked at.
        reached: blocks after which the target error was met.
        standard_error: the latest known.
        has_error: False once an estimate has come without a standard error.
        maps: final maps that wait for the result.
        restored: evaluations that a checkpoint brought.
        started_at: event-loop time of its first evaluation.
        compute_seconds: of all workers together.
        snapshot_at, estimated_at: event-loop time of the last snapshot and estimate.
        estimate_seconds: what the last estimate took.
        blocks_shown: blocks done at the last snapshot or estimate.
        finished: its result is on its way.
    """

    index: int
    key: str
    name: str
    outline: worker_pb2.Outline
    budget: explain_pb2.Budget
    desk: BlockDesk | None = None
    passes: int = 0
    asked: worker_pb2.Want.ValueType | None = None
    reviewing: bool = False
    chosen: Ending | None = None
    interrupted: bool = False
    failure: worker_pb2.Failed | None = None
    reviewed: int = 0
    reached: int | None = None
    standard_error: float | None = None
    has_error: bool = True
    maps: list[MapReady] = field(default_factory=list)
    restored: int = 0
    started_at: float | None = None
    compute_seconds: float = 0.0
    snapshot_at: float = 0.0
    estimated_at: float = 0.0
    estimate_seconds: float = 0.0
    blocks_shown: int = 0
    finished: bool = False
    _reviews: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.outline.gradient or self.outline.HasField("refused"):
            return
        limit = len(self.outline.starts)
        if self.budget.HasField("max_evaluations"):
            limit = blocks_within(self.outline.starts, self.outline.stops, self.budget.max_evaluations)
        self.desk = BlockDesk(self.outline.starts, self.outline.stops, limit=limit)
        if self.budget.HasField("target_standard_error"):
            self._reviews = review_points(limit)

    @property
    def planned(self) -> int:
        """Evaluations or passes of the plan."""
        return int(self.outline.evaluations)

    @property
    def done(self) -> int:
        """Evaluations or passes done."""
        return self.passes if self.desk is None else self.desk.evaluations_done

    def refusal(self) -> Ending | None:
        """Why it cannot even begin; None: it can."""
        if self.failure is not None:
            return Ending(explain_pb2.OUTCOME_FAILED, self.failure.reason, self.failure.message)
        if self.outline.HasField("refused"):
            refused = self.outline.refused
            return Ending(explain_pb2.OUTCOME_SKIPPED, refused.reason, refused.message)
        too_small = self.budget.HasField("max_evaluations") and (
            self.planned > self.budget.max_evaluations if self.desk is None else self.desk.limit == 0
        )
        if too_small:
            told = "the method cannot be cut to so few evaluations; raise the budget or lower its samples or steps"
            return Ending(explain_pb2.OUTCOME_SKIPPED, "BUDGET_TOO_SMALL", told)
        return None

    def review_due(self) -> int | None:
        """Blocks after which the standard error is to be compared with the target next, if they are done."""
        if self.desk is None or self.reached is not None or self.reviewed >= len(self._reviews):
            return None
        point = self._reviews[self.reviewed]
        return point if self.desk.prefix >= point else None

    def ask(self, want: worker_pb2.Want.ValueType, *, ending: Ending | None, review: bool) -> None:
        """Note what the lead is asked to make of the scores."""
        self.asked, self.reviewing = want, review
        if self.desk is not None:
            self.blocks_shown = self.desk.blocks_done
        if ending is not None:
            self.chosen = ending
            if self.desk is not None:
                self.desk.stop()

    def note_estimate(self, standard_error: float | None, *, seconds: float, now: float) -> None:
        """Take what the lead made of the scores."""
        if self.asked == worker_pb2.WANT_SNAPSHOT:
            # Its maps came before this answer: the pause counts from when they left, not from when they were asked for.
            self.snapshot_at = now
        reviewing, self.asked, self.reviewing = self.reviewing, None, False
        self.standard_error, self.has_error = standard_error, standard_error is not None
        self.estimate_seconds, self.estimated_at = seconds, now
        self.compute_seconds += seconds
        if not reviewing or self.reviewed >= len(self._reviews):
            return
        point = self._reviews[self.reviewed]
        self.reviewed += 1
        if standard_error is not None and standard_error <= self.budget.target_standard_error:
            self.reached = point
            if self.desk is not None:
                self.desk.stop()

    def ending(self) -> Ending | None:
        """How a perturbation method that needs no more evaluations ends; None: it goes on."""
        if self.desk is None:
            return None
        if self.reached is not None:
            told = "the standard error reached its target"
            return Ending(explain_pb2.OUTCOME_TARGET_ERROR_REACHED, "TARGET_ERROR_REACHED", told, self.reached)
        if not self.desk.complete or self.review_due() is not None:
            return None
        if self.desk.limit < len(self.desk.starts):
            told = "the budget of evaluations is spent"
            return Ending(explain_pb2.OUTCOME_BUDGET_SPENT, "BUDGET_SPENT", told, self.desk.limit)
        return Ending(explain_pb2.OUTCOME_COMPLETED)

    def evaluations_in_map(self, ending: Ending) -> int:
        """Evaluations that the map of this ending rests on."""
        if self.desk is None or ending.first_blocks is None:
            return self.done
        return self.desk.evaluations_in(ending.first_blocks)

    def drop_maps(self) -> None:
        """Close the memory of maps that nobody will get."""
        for ready in self.maps:
            ready.close()
        self.maps.clear()

    def result(
        self, told: explain_pb2.MethodResult | None, ending: Ending, *, began_at: float, engine: str
    ) -> explain_pb2.MethodResult:
        """The result for the stream: what the lead told, with outcome, counts and times filled in."""
        result = explain_pb2.MethodResult()
        if told is not None:
            result.CopyFrom(told)
        result.method_key = self.key
        result.outcome, result.reason, result.description = ending.outcome, ending.reason, ending.description
        result.evaluations_planned = self.planned
        result.evaluations_done = self.done if told is None else self.evaluations_in_map(ending)
        result.engine = result.engine or engine
        if self.started_at is not None:
            result.wait_duration.CopyFrom(duration(self.started_at - began_at))
        result.compute_duration.CopyFrom(duration(self.compute_seconds))
        return result


def runs_of(spec: explain_pb2.ExplainSpec, outlines: Iterable[worker_pb2.Outline]) -> list[MethodRun]:
    """The books of every method of a call, in its order."""
    names = [(method.WhichOneof("method") or "").replace("_", "-") for method in spec.methods]
    return [
        MethodRun(index=index, key=spec.methods[index].key, name=name, outline=outline, budget=spec.budget)
        for index, (name, outline) in enumerate(zip(names, outlines, strict=True))
    ]


def duration(seconds: float) -> Duration:
    """Seconds as a protobuf Duration, never negative."""
    made = Duration()
    made.FromNanoseconds(max(int(seconds * 1e9), 0))
    return made
