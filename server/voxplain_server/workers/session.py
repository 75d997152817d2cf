"""One call on the compute side: its case, its score, its plans, and the engines that answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from voxplain.errors import Cancelled, InternalFault, UnsupportedByModel
from voxplain.v1 import explain_pb2
from voxplain.worker.v1 import worker_pb2

from voxplain_server.engines.batched_scores import ask
from voxplain_server.features.feature_cache import FeatureCache
from voxplain_server.methods import all_methods
from voxplain_server.methods.estimate import Estimate
from voxplain_server.methods.method import GradientMethod, Method, PerturbationMethod, Setting
from voxplain_server.methods.pass_cache import PassCache
from voxplain_server.methods.plan import Plan
from voxplain_server.models.case import Case
from voxplain_server.models.case_building import FittedCase, build_case
from voxplain_server.models.cautions import describe_cautions
from voxplain_server.models.targeting import ResolvedTarget, resolve_target
from voxplain_server.models.traits import ModelTraits
from voxplain_server.workers.channel import Channel
from voxplain_server.workers.expected_time import expect_seconds_each
from voxplain_server.workers.faults import describe_fault
from voxplain_server.workers.held_model import Held
from voxplain_server.workers.map_making import MapMaker
from voxplain_server.workers.map_sender import MapSender
from voxplain_server.workers.method_result import make_prediction, make_result
from voxplain_server.workers.method_run import duration
from voxplain_server.workers.passes import passes_of
from voxplain_server.workers.plan_book import PlanBook
from voxplain_server.workers.planned import Planned, plan_method
from voxplain_server.workers.score_board import ScoreBoard
from voxplain_server.workers.sent_tensors import SentTensors, asks_for_donors
from voxplain_server.workers.shared_labels import SharedLabels

_TOLD_EVERY_S = 0.5


class Session:
    """A call that a worker has opened.

    Args:
        call: its number.
        command: what is asked.
        held: the model.
        traits: facts about its graph.
        memory: descriptor of the memory file with the tensors; it stays the caller's.
        labels: descriptor of the memory file with the supervoxels of the call, likewise; None: it makes its own.
        channel: where maps go.
        cancelled: asked between batches, passes and steps.
        abandoned: whether the whole call was cancelled, so that nobody wants what there is.
    """

    def __init__(
        self,
        call: int,
        command: worker_pb2.Open,
        held: Held,
        *,
        traits: ModelTraits,
        memory: int,
        labels: int | None = None,
        channel: Channel[worker_pb2.Command],
        cancelled: Callable[[], bool],
        abandoned: Callable[[], bool] = lambda: False,
    ) -> None:
        self.call = call
        self._command = command
        self._spec = command.spec
        self.held = held
        self._evaluator = held.evaluator_named(command.execution.engine)
        self._incremental = held.incremental_named(command.execution.engine)
        self._channel = channel
        self._cancelled = cancelled
        self._abandoned = abandoned
        self._tensors = SentTensors(command.tensors, memory)
        self._traits = traits
        self._planned: PlanBook | None = None
        self._answer_seconds = 0.0
        self._features = FeatureCache(threads=command.execution.threads_per_worker)
        self._labels = SharedLabels(labels)
        self._features.take(self._labels.read())
        self._passes = PassCache()
        self._board: ScoreBoard | None = None
        self._fitted: FittedCase | None = None
        self._targeted: ResolvedTarget | None = None
        self._sender: MapSender | None = None

    def prepare(self) -> worker_pb2.Prepared:
        """Build the case, ask the model, resolve the target; the lead also plans every method and digests the tensors.

        Raises:
            voxplain.errors.VoxplainError: the tensors, or the target, do not fit the model.
            voxplain.errors.Cancelled: the front wants no more of it.
        """
        self._fitted = build_case(self.held.model, self._tensors.read(), donors=asks_for_donors(self._spec.methods))
        self._sender = MapSender(call=self.call, channel=self._channel, maker=MapMaker(self._fitted, self._spec.grid))
        ask(self._cancelled)
        answered_at = time.monotonic()
        answer = self._evaluator.answer(self._case)
        self._answer_seconds = time.monotonic() - answered_at
        self._targeted = resolve_target(self.held.model, self._spec.target, answer, self._case.mask)
        prepared = worker_pb2.Prepared(engine=self._evaluator.name)
        if not self._command.lead:
            return prepared
        prepared.prediction.CopyFrom(make_prediction(self.held.model, self._targeted))
        prepared.cautions.extend(describe_cautions(self._fitted.cautions))
        prepared.digests.extend(self._tensors.digests())
        self._answer_early(prepared.prediction)
        for index in range(len(self._spec.methods)):
            ask(self._cancelled)
            outline = self._outline(index)
            prepared.outlines.append(outline)
            prepared.prediction.plans.append(self._announce(index, outline))
        self._labels.share(self._features.labels)
        return prepared

    def attach(self, descriptor: int, evaluations: Sequence[int]) -> None:
        """Take the board of the call; the descriptor is the session's from now on."""
        self._board = ScoreBoard(descriptor, evaluations)

    def evaluate(self, index: int, number: int) -> worker_pb2.BlockDone:
        """Evaluate one block whole and write its scores to the board.

        Raises:
            voxplain.errors.UnsupportedByModel: SCORE_NOT_FINITE.
            voxplain.errors.Cancelled: the front wants no more of it.
        """
        began_at = time.monotonic()
        planned = self._plans.plan(index)
        block, board = planned.blocks[number], self._the_board
        here = slice(block.start, block.stop)
        unchanged, sources = planned.plan.unchanged[here], planned.links.method[here]
        needed = np.flatnonzero(planned.needed[here])
        # What is another's is read there: here it stays unknown.
        scores = np.where(unchanged, self._target.value, np.nan)
        scores[needed] = self._scores(planned.plan, block.start + needed)
        board.scores(index)[here] = scores
        return worker_pb2.BlockDone(
            batches=passes_of(self._evaluator, int(needed.size), self._batch_size),
            method=index,
            block=number,
            evaluated=int(needed.size),
            saved=block.stop - block.start - int(needed.size),
            unchanged=int(unchanged.sum()),
            repeated_cases=int((sources == index).sum()),
            shared=int((planned.links.taken[here] & (sources != index)).sum()),
            seconds=time.monotonic() - began_at,
        )

    def attribute(self, index: int) -> worker_pb2.Estimated:
        """Run a gradient method and send its maps."""
        began_at = time.monotonic()
        method = self._method(index)
        if not isinstance(method, GradientMethod):
            raise InternalFault("NO_GRADIENT", "the front asked for a gradient of a method that has none")
        told_at = began_at

        def advanced(passes: int) -> None:
            nonlocal told_at
            if time.monotonic() - told_at >= _TOLD_EVERY_S:
                told_at = time.monotonic()
                self._send(advanced=worker_pb2.Advanced(method=index, passes=passes))

        estimate = method.attribute(self._setting(index), self.held.twin, advanced=advanced, cancelled=self._cancelled)
        if self._abandoned():
            raise Cancelled("CANCELLED", "the client cancelled")
        return self._tell(index, estimate, worker_pb2.WANT_FINAL, began_at, engine=self.held.twin.name)

    def estimate(self, command: worker_pb2.Estimate) -> worker_pb2.Estimated:
        """Tell what the scores on the board mean, and send maps where they are wanted."""
        began_at = time.monotonic()
        index = command.method
        plan, board, failed = self._plans.plan(index).plan, self._the_board, list(command.failed)
        evaluated = self._plans.adopt(index, board, failed=failed, evaluate=lambda rows: self._scores(plan, rows))
        first_blocks = command.first_blocks if command.HasField("first_blocks") else None
        scores, done = self._plans.read(index, board, first_blocks=first_blocks, failed=failed)
        method = self._method(index)
        if not isinstance(method, PerturbationMethod):
            raise InternalFault("NO_ESTIMATE", "the front asked for an estimate of a method that has none")
        told = self._tell(
            index,
            method.estimate(plan, scores, done),
            command.want,
            began_at,
            engine=self._evaluator.name,
            evaluations=int(done.sum()),
            savings=self._plans.savings(index, done, failed=failed),
        )
        told.evaluated = evaluated
        return told

    def evaluations_of(self, index: int) -> int:
        """What a method of the call takes, as far as it is known without grouping voxels."""
        return self._method(index).count_evaluations(self._params(index), [volume.shape for volume in self._case.volumes])

    def interrupt(self) -> None:
        """Stop the pass under way; called from another thread, after `cancelled` has become true."""
        interrupt = getattr(self._evaluator, "interrupt", None)
        if interrupt is not None:
            interrupt()

    def close(self) -> None:
        """Let go of everything."""
        if self._board is not None:
            self._board.close()
        self._board = self._fitted = self._targeted = self._sender = self._planned = None
        self._features, self._passes = FeatureCache(), PassCache()
        self.held.forget()
        self._tensors.close()
        self._labels.close()

    # The case.

    @property
    def _case(self) -> Case:
        if self._fitted is None:
            raise InternalFault("NOT_PREPARED", "the call was not prepared on this worker")
        return self._fitted.case

    @property
    def _target(self) -> ResolvedTarget:
        if self._targeted is None:
            raise InternalFault("NOT_PREPARED", "the call was not prepared on this worker")
        return self._targeted

    @property
    def _the_board(self) -> ScoreBoard:
        if self._board is None:
            raise InternalFault("NO_BOARD", "the call has no board on this worker")
        return self._board

    @property
    def _batch_size(self) -> int:
        return self._command.execution.batch_size if self.held.model.batched else 1

    def _scores(self, plan: Plan, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Ask the model for some evaluations of a plan."""
        if numbers.size == 0:
            return np.zeros(0)
        scores = self._evaluator.scores(
            self._case,
            self._target.score,
            [plan.perturbation(int(number)) for number in numbers],
            batch_size=self._batch_size,
            cancelled=self._cancelled,
        )
        if not np.isfinite(scores).all():
            told = "on a perturbed case the model answers numbers that are not finite; use another baseline or method"
            raise UnsupportedByModel("SCORE_NOT_FINITE", told)
        return scores

    # The methods.

    def _method(self, index: int) -> Method:
        return all_methods()[(self._spec.methods[index].WhichOneof("method") or "").replace("_", "-")]

    def _params(self, index: int) -> Message:
        asked = self._spec.methods[index]
        params: Message = getattr(asked, asked.WhichOneof("method") or "")
        return params

    def _setting(self, index: int) -> Setting:
        asked = self._spec.methods[index]
        return Setting(
            case=self._case,
            score=self._target.score,
            base_score=self._target.value,
            params=self._params(index),
            seed=self._spec.seed,
            key=asked.key,
            traits=self._traits,
            block_size=self._command.execution.block_size,
            features=self._features,
            passes=self._passes,
        )

    def _plan(self, index: int, method: PerturbationMethod) -> Planned:
        return plan_method(
            method, self._setting(index), self._spec, incremental=self._incremental, pass_seconds=self._pass_seconds
        )

    @property
    def _plans(self) -> PlanBook:
        """The plans; a helper makes them when it gets its first block."""
        if self._planned is None:
            self._planned = PlanBook(self._spec, self._case.volumes, method=self._method, plan=self._plan)
        return self._planned

    @property
    def _pass_seconds(self) -> float:
        if self._incremental is None:
            return self._answer_seconds
        # Its answer keeps every activation: it tells nothing about a whole pass.
        return self._traits.whole_pass_seconds_of([volume.shape for volume in self._case.volumes]) or self._answer_seconds

    def _answer_early(self, prediction: explain_pb2.Prediction) -> None:
        """Tell what the model answered at once: making supervoxels can take longer than all that came before."""
        answered = worker_pb2.Answered(prediction=prediction)
        for index in range(len(self._spec.methods)):
            # Nothing is planned for it: the plan of a method needs those of the methods before, and these their supervoxels.
            answered.prediction.plans.append(self._announce(index, self._expected(index)))
        self._send(answered=answered)

    def _expected(self, index: int) -> worker_pb2.Outline:
        """As `_outline`, as far as it is known without grouping voxels: no blocks, and evaluations by the method's estimate."""
        method = self._method(index)
        fatal = next((each for each in method.remarks(self._params(index), self.held.model, self._traits) if each.fatal), None)
        if fatal is not None:
            return worker_pb2.Outline(refused=describe_fault(UnsupportedByModel(fatal.reason, fatal.message)))
        return worker_pb2.Outline(gradient=method.needs_gradients, evaluations=self.evaluations_of(index))

    def _outline(self, index: int) -> worker_pb2.Outline:
        expected = self._expected(index)
        if expected.gradient or expected.HasField("refused"):
            return expected
        try:
            planned = self._plans.plan(index)
        except Cancelled:
            raise
        except Exception as error:
            return worker_pb2.Outline(refused=describe_fault(error))
        return worker_pb2.Outline(
            evaluations=planned.plan.evaluations,
            starts=[block.start for block in planned.blocks],
            stops=[block.stop for block in planned.blocks],
            features=planned.plan.features,
            saved=planned.plan.evaluations - int(planned.needed.sum()),
        )

    def _announce(self, index: int, outline: worker_pb2.Outline) -> explain_pb2.MethodPlan:
        planned = self._plans.made(index)
        shapes, asked = [volume.shape for volume in self._case.volumes], self._spec.methods[index]
        expected = outline.evaluations * expect_seconds_each(asked, self._traits, shapes, engine=self._evaluator.name)
        announced = explain_pb2.MethodPlan(
            method_key=asked.key,
            evaluations=outline.evaluations,
            blocks=len(outline.starts),
            estimated_duration=duration(expected if planned is None else planned.seconds),
            engine=self.held.gradient_engine if outline.gradient else self._evaluator.name,
            refused_reason=outline.refused.reason,
            savings=[] if planned is None else self._plans.savings(index),
        )
        if outline.HasField("features"):
            announced.features = outline.features
        return announced

    # What goes back.

    def _tell(
        self,
        index: int,
        estimate: Estimate,
        want: worker_pb2.Want.ValueType,
        began_at: float,
        *,
        engine: str,
        evaluations: int | None = None,
        savings: Sequence[explain_pb2.Saving] | None = None,
    ) -> worker_pb2.Estimated:
        method, asked = self._method(index), self._spec.methods[index]
        done = estimate.passes + estimate.saved if evaluations is None else evaluations
        if self._sender is not None and want != worker_pb2.WANT_ERROR:
            self._sender.send(asked.key, estimate, snapshot=want == worker_pb2.WANT_SNAPSHOT, evaluations=done)
        remarks = method.remarks(self._params(index), self.held.model, self._traits)
        result = make_result(
            estimate,
            engine=engine,
            evaluations=done,
            names=self.held.model.modality_names,
            assumptions=method.assumptions,
            remarks=remarks,
        )
        if savings is None:
            # A gradient pass that another method of the call has done.
            shared = explain_pb2.Saving(reason=explain_pb2.Saving.REASON_SHARED, evaluations=estimate.saved)
            savings = [shared] if estimate.saved else []
        result.savings.extend(savings)
        result.evaluations_saved = sum(each.evaluations for each in savings)
        planned = self._plans.made(index)
        if planned is not None and planned.plan.features is not None:
            result.features = planned.plan.features
        return worker_pb2.Estimated(
            method=index,
            want=want,
            result=result,
            cautions=[
                explain_pb2.Caution(code=code, description=words, method_key=asked.key) for code, words in estimate.cautions
            ],
            seconds=time.monotonic() - began_at,
        )

    def _send(self, **event: Message) -> None:
        self._channel.send(worker_pb2.Event(call=self.call, **event))  # type: ignore[arg-type]
