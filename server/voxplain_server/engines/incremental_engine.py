"""Exact re-evaluation of local perturbations: only what a change reaches is computed anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voxplain_server.engines.activation_cache import ActivationCache, by_case, channels_last
from voxplain_server.engines.batched_scores import ask
from voxplain_server.engines.compute_streams import ComputeStreams
from voxplain_server.engines.dirty_box import BoxTravel, DirtyBoxes
from voxplain_server.engines.engine import Cancelled, Evaluator
from voxplain_server.engines.incremental_groups import BoxGroup, group_by_shape
from voxplain_server.engines.incremental_pass import IncrementalPass
from voxplain_server.engines.incremental_tail import run_keeping
from voxplain_server.engines.input_change import InputChange, InputLayout, find_changes
from voxplain_server.engines.layout import assemble_tensors
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.engines.torch_engine import placed_twin
from voxplain_server.graph.locality import Locality, analyse_locality
from voxplain_server.graph.onnx_graph import Graph
from voxplain_server.graph.shape_reading import ExactShape, read_shapes
from voxplain_server.graph.twin import build_twin
from voxplain_server.models.case import Case
from voxplain_server.models.model import Model
from voxplain_server.models.score import Score

MAX_SHARE = 0.5
"""A perturbation that takes a larger share of a whole pass goes through the dense engine."""
CHUNK_BYTES = 16 << 20
"""Crops that are in memory at one time: small enough for the processor's last cache, large enough to hide Python."""
_READ_AT_ONCE = 1024
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
        self._twin = twin
        self._layout = InputLayout(model)
        self._prepared: dict[tuple[ExactShape, ...], _Prepared] = {}
        self._held: _Held | None = None
        self._dense_base: tuple[Case, Score, float] | None = None
        self._interrupted = False
        on_host = self._device.type == "cpu"
        self._streams = ComputeStreams((torch.get_num_threads() if threads is None else threads) if on_host else 1)

    @property
    def name(self) -> str:
        """Stands in plans and records: "incremental-cpu" or "incremental-cuda"."""
        return f"incremental-{self._device.type}"

    def answer(self, case: Case) -> npt.NDArray[np.float32]:
        """The raw answer on the unperturbed case, alone in its batch: as Score.of takes it."""
        self._interrupted = False
        return self._hold(case).answer.astype(np.float32)

    def full_flops(self, case: Case) -> float:
        """Operations of one whole pass over a case of these shapes; nothing is computed."""
        return self._prepare(case).locality.full_flops

    def count_flops(self, case: Case, perturbations: Sequence[Perturbation]) -> npt.NDArray[np.float64]:
        """(len(perturbations),) operations of each if it is evaluated incrementally; 0 where nothing changes."""
        prepared = self._prepare(case)
        return prepared.travel.count_flops(self._boxes(prepared, [find_changes(each, case.volumes) for each in perturbations]))

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

    def shrink(self) -> None:
        """Give back the memory that is kept between calls; call it after a job."""
        self._held = self._dense_base = None
        shrink = getattr(self._dense, "shrink", None)
        if shrink is not None:
            shrink()

    def _scores(
        self, case: Case, score: Score, perturbations: Sequence[Perturbation], *, batch_size: int, cancelled: Cancelled
    ) -> npt.NDArray[np.float64]:
        prepared, held = self._prepare(case), self._hold(case)
        changes = [find_changes(each, case.volumes) for each in perturbations]
        boxes = self._boxes(prepared, changes)
        base = float(score.of(held.answer)[0])
        scores = np.full(len(perturbations), base)
        reached = prepared.travel.reach_end(boxes)
        dense = reached & (prepared.travel.count_flops(boxes) > self._max_share * prepared.locality.full_flops)
        chosen = np.flatnonzero(reached & ~dense)

        def evaluate(chunk: BoxGroup) -> npt.NDArray[np.float64]:
            with torch.inference_mode():
                inputs = self._changed_inputs(prepared, held, chunk, changes, perturbations)
                answers = prepared.steps.run(chunk, held.cache, inputs)
            return score.of(self._with_batch_axis(answers))

        chunks = self._chunks(prepared, boxes, chosen)
        for chunk, found in zip(chunks, self._streams.map(evaluate, chunks), strict=True):
            ask(cancelled)
            scores[chunk.members] = found
        whole = np.flatnonzero(dense)
        if whole.size:
            asked = [perturbations[int(index)] for index in whole]
            given = self._dense.scores(case, score, asked, batch_size=batch_size, cancelled=cancelled)
            scores[whole] = given + (base - self._base_of_dense(case, score))
        return scores

    def _chunks(self, prepared: _Prepared, boxes: DirtyBoxes, chosen: npt.NDArray[np.int64]) -> list[BoxGroup]:
        if chosen.size == 0:
            return []
        per_call = _FLOPS_PER_CALL["cpu" if self._device.type == "cpu" else "cuda"] * len(prepared.locality.steps)
        groups = group_by_shape(prepared.travel, boxes, chosen, flops_per_call=per_call)
        bytes_each = torch.empty(0, dtype=self._dtype).element_size()
        # No stream is to wait long for the last part of another one.
        share = sum(group.members.size * prepared.travel.work(group.sizes) for group in groups) / (2 * self._streams.threads)
        parts = [
            part
            for group in groups
            for part in group.parts(
                min(
                    max(1, CHUNK_BYTES // prepared.steps.bytes_per_case(group, bytes_each)),
                    max(1, int(share / prepared.travel.work(group.sizes))),
                )
            )
        ]
        return sorted(parts, key=lambda part: -part.members.size * prepared.travel.work(part.sizes))

    def _changed_inputs(
        self,
        prepared: _Prepared,
        held: _Held,
        group: BoxGroup,
        changes: Sequence[tuple[InputChange, ...]],
        perturbations: Sequence[Perturbation],
    ) -> dict[str, Tensor]:
        count = group.members.size
        names = [name if name in group.sizes else None for name in prepared.locality.inputs]
        crops = {
            name: held.cache.crop(name, group.starts[name], group.sizes[name], fill=0.0, patch=None)
            for name in names
            if name is not None
        }
        rows = {name: by_case(crop, count) for name, crop in crops.items()}
        for row, member in enumerate(group.members):
            arrays = [None if name is None else rows[name][row] for name in names]
            origins = [np.zeros(0, np.int64) if name is None else group.starts[name][row] for name in names]
            for change in changes[int(member)]:
                self._layout.write(arrays, origins, change, perturbations[int(member)].source)
        return crops

    def _boxes(self, prepared: _Prepared, changes: Sequence[tuple[InputChange, ...]]) -> DirtyBoxes:
        shapes = [prepared.locality.shapes[name] for name in prepared.locality.inputs]
        return prepared.travel.travel(self._layout.boxes(changes, shapes), len(changes))

    def _prepare(self, case: Case) -> _Prepared:
        volumes = [torch.empty((1, *volume.shape), device="meta") for volume in case.volumes]
        shapes = tuple(tuple(tensor.shape) for tensor in assemble_tensors(self._model, volumes))
        if shapes not in self._prepared:
            locality = analyse_locality(self._graph, self._model.output.score_name, read_shapes(self._twin, shapes))
            travel = BoxTravel(locality)
            steps = IncrementalPass(self._graph, self._twin, locality, travel, batched=self._model.batched)
            self._prepared = {shapes: _Prepared(locality, travel, steps)}
        return self._prepared[shapes]

    def _hold(self, case: Case) -> _Held:
        if self._held is None or self._held.case is not case:
            self._held = None
            locality = self._prepare(case).locality
            volumes = [torch.tensor(volume, device=self._device, dtype=self._dtype)[None] for volume in case.volumes]
            inputs = tuple(channels_last(tensor) for tensor in assemble_tensors(self._model, volumes))
            keep = {self._twin.onnx_values[value]: value for value in locality.kept}
            output, kept = run_keeping(self._twin, inputs, keep)
            cache = ActivationCache({name: channels_last(tensor) for name, tensor in kept.items()})
            answer = output.cpu().numpy()
            self._held = _Held(case, cache, answer if self._model.output.has_batch_axis else answer[None])
        return self._held

    def _base_of_dense(self, case: Case, score: Score) -> float:
        known = self._dense_base
        if known is None or known[0] is not case or known[1] is not score:
            nothing = Perturbation(regions=(), source=case.volumes)
            value = self._dense.scores(case, score, [nothing], batch_size=1, cancelled=lambda: False)[0]
            known = self._dense_base = (case, score, float(value))
        return known[2]

    def _with_batch_axis(self, answers: Tensor) -> npt.NDArray[Any]:
        """(perturbations, ...) as Score.of takes it."""
        table: npt.NDArray[Any] = answers.cpu().numpy()
        return table[:, 0] if self._model.output.has_batch_axis else table
