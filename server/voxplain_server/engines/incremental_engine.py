"""Exact re-evaluation of local perturbations: only what a change reaches is computed anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from voxplain import errors

from voxplain_server.engines.activation_cache import ActivationCache
from voxplain_server.engines.batched_scores import ask
from voxplain_server.engines.change_table import ChangeTable
from voxplain_server.engines.compute_streams import ComputeStreams
from voxplain_server.engines.crop_tensor import channels_last
from voxplain_server.engines.dirty_box import BoxTravel
from voxplain_server.engines.engine import Cancelled, Evaluator
from voxplain_server.engines.incremental_groups import BoxGroup
from voxplain_server.engines.incremental_head import find_head
from voxplain_server.engines.incremental_pass import IncrementalPass
from voxplain_server.engines.incremental_plan import CostModel, IncrementalPlan, cut_into_chunks, plan_evaluations
from voxplain_server.engines.incremental_run import Begun, IncrementalRun
from voxplain_server.engines.incremental_tail import run_keeping
from voxplain_server.engines.incremental_walks import Walk
from voxplain_server.engines.input_assembly import assemble_tensors
from voxplain_server.engines.input_change import InputLayout
from voxplain_server.engines.packed_twin import install_packed
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.engines.torch_engine import placed_twin
from voxplain_server.graph.locality import Locality, analyse_locality
from voxplain_server.graph.onnx_graph import Graph
from voxplain_server.graph.shape_reading import ExactShape, read_shapes
from voxplain_server.graph.twin import build_twin
from voxplain_server.models.case import Case
from voxplain_server.models.engine_choice import MAX_SHARE
from voxplain_server.models.model import Model
from voxplain_server.models.score import Score

CROP_BYTES = 256 << 20
"""Crops that are in memory at one time, on all streams together."""
_MOST_CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 256 << 20}
_READ_AT_ONCE = 1024
_MOST_KNOWN = 4096
"""Regions that are kept in mind from one call to the next."""
_FLOPS_PER_CALL = {"cpu": 5e6, "cuda": 5e8}
"""Operations that take as long as starting one layer."""


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """What depends on the shapes of a case only."""

    locality: Locality
    travel: BoxTravel
    steps: IncrementalPass


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """What depends on one case."""

    case: Case
    cache: ActivationCache
    host_inputs: ActivationCache
    answer: npt.NDArray[Any]


class IncrementalEvaluator:
    """Evaluates perturbed cases by recomputing the boxes that they change (an Evaluator).

    Equal to a whole pass up to the order of summation. Scores are a pure function of the perturbations of one call: which of
    them are computed together depends on all of them, on nothing else, and not on `batch_size`.

    Args:
        graph: the model.
        model: the bundle's description of it.
        dense: answers where a whole pass is cheaper; its scores are moved by the difference of the two base scores.
        device: "cpu", "cuda" or a torch device.
        dtype: what it computes in.
        threads: compute threads of this whole process; None leaves them.
        max_share: a perturbation that takes a larger share of the operations of a whole pass goes to `dense`.

    Attributes:
        batches: passes of the last `scores` by the perturbations that they held.

    Raises:
        voxplain_server.graph.unsupported_operator.UnsupportedOperator: the twin cannot be built.
    """

    def __init__(
        self,
        graph: Graph,
        model: Model,
        dense: Evaluator,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        threads: int | None = None,
        max_share: float = MAX_SHARE,
    ) -> None:
        self._graph, self._model, self._dense = graph, model, dense
        self._device, self._dtype = torch.device(device), dtype
        self._max_share = max_share
        twin = build_twin(graph, dtype=dtype, outputs=[model.output.score_name])
        placed_twin(twin, device=self._device, dtype=dtype, threads=threads)
        install_packed(twin, only_forwards=True)
        self._twin = twin
        self._layout = InputLayout(model)
        self._prepared: dict[tuple[ExactShape, ...], _Prepared] = {}
        self._held: _Held | None = None
        self._dense_base: tuple[Case, Score, float] | None = None
        self._known: tuple[Case, ChangeTable] | None = None
        self._interrupted = False
        self.batches: Counter[int] = Counter()
        on_host = self._device.type == "cpu"
        self._streams = ComputeStreams((torch.get_num_threads() if threads is None else threads) if on_host else 1)

    @property
    def name(self) -> str:
        """Stands in plans and records: see `incremental_name`."""
        return incremental_name(self._dense.name)

    def answer(self, case: Case) -> npt.NDArray[np.float32]:
        """The raw answer on the unperturbed case, alone in its batch: as Score.of takes it."""
        self._interrupted = False
        return self._hold(case).answer.astype(np.float32)

    def full_flops(self, case: Case) -> float:
        """Operations of one whole pass over a case of these shapes; nothing is computed."""
        return self._prepare(case).locality.full_flops

    def count_flops(self, case: Case, perturbations: Sequence[Perturbation]) -> npt.NDArray[np.float64]:
        """(len(perturbations),) operations of each, evaluated by itself from the case; 0 where nothing changes."""
        prepared = self._prepare(case)
        table = self._table(prepared, case)
        rows = [table.rows(each) for each in perturbations]
        return prepared.travel.count_flops(prepared.travel.travel(table.boxes(rows), len(rows)))

    def shares(self, perturbations: Sequence[Perturbation], case: Case) -> npt.NDArray[np.float64]:
        """(len(perturbations),) operations of each, evaluated by itself, over those of a whole pass; 1 where one is done."""
        shares = self.count_flops(case, perturbations) / self.full_flops(case)
        return np.where(shares > self._max_share, 1.0, shares)

    def planned_flops(self, case: Case, perturbations: Sequence[Perturbation]) -> npt.NDArray[np.float64]:
        """(len(perturbations),) operations of each as one call to `scores` evaluates them; nothing is computed."""
        prepared = self._prepare(case)
        plan = self._plan(prepared, case, perturbations)
        planned = np.zeros(len(perturbations))
        planned[plan.grouped] = plan.flops[plan.grouped]
        planned[plan.dense] = prepared.locality.full_flops
        for walk in plan.walks:
            planned[list(walk.order)] = walk.work
        return planned

    def scores(
        self,
        case: Case,
        score: Score,
        perturbations: Sequence[Perturbation],
        *,
        batch_size: int,
        cancelled: Cancelled,
    ) -> npt.NDArray[np.float64]:
        """As Evaluator.scores; `batch_size` is that of the dense engine."""
        self._interrupted = False
        self.batches.clear()

        def stop() -> bool:
            return self._interrupted or cancelled()

        ask(stop)
        found = np.full(len(perturbations), np.nan)
        for first in range(0, len(perturbations), _READ_AT_ONCE):
            part: list[Perturbation] = []
            for index in range(first, min(first + _READ_AT_ONCE, len(perturbations))):
                ask(stop)
                part.append(perturbations[index])
            found[first : first + len(part)] = self._scores(case, score, part, batch_size=batch_size, cancelled=stop)
        return found

    def interrupt(self) -> None:
        """Stop soon, from another thread: `scores` raises Cancelled."""
        self._interrupted = True
        interrupt = getattr(self._dense, "interrupt", None)
        if interrupt is not None:
            interrupt()

    def forget(self) -> None:
        """Let go of the case and of what was computed of it."""
        self._held = self._dense_base = self._known = None

    def shrink(self) -> None:
        """Give back the memory that is kept between calls; call it after a job."""
        self.forget()
        shrink = getattr(self._dense, "shrink", None)
        if shrink is not None:
            shrink()

    def _scores(
        self, case: Case, score: Score, perturbations: Sequence[Perturbation], *, batch_size: int, cancelled: Cancelled
    ) -> npt.NDArray[np.float64]:
        prepared, held = self._prepare(case), self._hold(case)
        base = float(score.of(self._rounded(held.answer))[0])
        # The head is more precise than the answer that went out; differences to that answer are to be exact.
        shift = base - float(score.of(held.answer)[0])
        scores = np.full(len(perturbations), base)
        plan = self._plan(prepared, case, perturbations)
        run = IncrementalRun(
            plan, prepared.steps, prepared.travel, self._layout, cache=held.cache, host_inputs=held.host_inputs
        )

        def asked() -> None:
            try:
                ask(cancelled)
            except errors.Cancelled:
                run.stop()
                raise

        def write(members: list[int], answers: Tensor) -> None:
            scores[members] = score.of(self._with_batch_axis(answers)) + shift

        tasks: list[BoxGroup | Walk] = [*plan.walks, *cut_into_chunks(prepared.travel, plan, self._costs(prepared))]
        waiting: list[Begun] = []
        for begun in self._streams.map(run.begin, tasks, ask=asked):
            if begun.answers is None:
                waiting.append(begun)
            else:
                write(begun.members, begun.answers)
        if waiting:
            (answers,) = self._streams.map(run.finish, [waiting], ask=asked)
            write([member for each in waiting for member in each.members], answers)
        for task in tasks:
            # A walk goes step by step; a group is one pass.
            size, passes = (1, len(task.order)) if isinstance(task, Walk) else (int(task.members.size), 1)
            self.batches[size] += passes
        if plan.dense.size:
            left = [perturbations[int(index)] for index in plan.dense]
            given = self._dense.scores(case, score, left, batch_size=batch_size, cancelled=cancelled)
            batch = batch_size if self._model.batched else 1
            self.batches += Counter({batch: len(left) // batch}) + Counter({len(left) % batch: 1} if len(left) % batch else {})
            scores[plan.dense] = given + (base - self._base_of_dense(case, score))
        return scores

    def _plan(self, prepared: _Prepared, case: Case, perturbations: Sequence[Perturbation]) -> IncrementalPlan:
        return plan_evaluations(prepared.travel, self._table(prepared, case), perturbations, self._costs(prepared))

    def _costs(self, prepared: _Prepared) -> CostModel:
        kind = "cpu" if self._device.type == "cpu" else "cuda"
        return CostModel(
            most=self._max_share * prepared.locality.full_flops,
            per_call=_FLOPS_PER_CALL[kind],
            streams=self._streams.threads,
            chunk_bytes=min(CROP_BYTES // self._streams.threads, _MOST_CHUNK_BYTES[kind]),
            element_bytes=torch.empty(0, dtype=self._dtype).element_size(),
        )

    def _table(self, prepared: _Prepared, case: Case) -> ChangeTable:
        """The changes of this case looked at so far: features are the same in every block. Windows are not, so it starts anew
        before it grows large; what it knows decides no score."""
        if self._known is None or self._known[0] is not case or len(self._known[1]) > _MOST_KNOWN:
            shapes = [prepared.locality.shapes[name] for name in prepared.locality.inputs]
            self._known = (case, ChangeTable(self._layout, case.volumes, shapes))
        return self._known[1]

    def _prepare(self, case: Case) -> _Prepared:
        volumes = [torch.empty((1, *volume.shape), device="meta") for volume in case.volumes]
        shapes = tuple(tuple(tensor.shape) for tensor in assemble_tensors(self._model, volumes))
        if shapes not in self._prepared:
            locality = analyse_locality(self._graph, self._model.output.score_name, read_shapes(self._twin, shapes))
            head = find_head(locality)
            travel = BoxTravel(locality, head.means)
            steps = IncrementalPass(self._twin, locality, head, travel, batched=self._model.batched)
            self._prepared = {shapes: _Prepared(locality, travel, steps)}
        return self._prepared[shapes]

    def _hold(self, case: Case) -> _Held:
        if self._held is None or self._held.case is not case:
            self._held = None
            prepared = self._prepare(case)
            volumes = [torch.tensor(volume, device=self._device, dtype=self._dtype)[None] for volume in case.volumes]
            inputs = tuple(channels_last(tensor) for tensor in assemble_tensors(self._model, volumes))
            keep = {self._twin.onnx_values[value]: value for value in prepared.steps.kept}
            output, kept = run_keeping(self._twin, inputs, keep)
            with torch.inference_mode():
                cache = prepared.steps.complete(kept)
            output = output if prepared.locality.has_tail else cache[prepared.locality.output]
            answer = output.cpu().numpy()
            on_host = {name: cache[name].cpu() for name in prepared.locality.inputs}
            with_batch_axis = answer if self._model.output.has_batch_axis else answer[None]
            self._held = _Held(case, cache, ActivationCache(on_host), with_batch_axis)
        return self._held

    def _base_of_dense(self, case: Case, score: Score) -> float:
        known = self._dense_base
        if known is None or known[0] is not case or known[1] is not score:
            nothing = Perturbation(regions=(), source=case.volumes)
            value = self._dense.scores(case, score, [nothing], batch_size=1, cancelled=lambda: False)[0]
            known = self._dense_base = (case, score, float(value))
        return known[2]

    def _rounded(self, answer: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return answer.astype(np.float32) if self._dtype == torch.float32 else answer

    def _with_batch_axis(self, answers: Tensor) -> npt.NDArray[Any]:
        """(perturbations, ...) as Score.of takes it."""
        table: npt.NDArray[Any] = answers.cpu().numpy()
        return table[:, 0] if self._model.output.has_batch_axis else table


def incremental_name(dense: str) -> str:
    """Name of the engine that leaves whole passes to another: "incremental-cpu" where that is ONNX Runtime, else the other's
    name after "incremental-", such as "incremental-torch-cpu"."""
    return f"incremental-{dense.removeprefix('onnxruntime-')}"
