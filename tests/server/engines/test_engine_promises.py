"""What every Evaluator promises, held against each of them on every kind of model."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from voxplain import errors
from voxplain_server.engines.batch_buffer import BatchBuffer
from voxplain_server.engines.engine import Evaluator
from voxplain_server.engines.incremental_engine import IncrementalEvaluator
from voxplain_server.engines.onnx_engine import OnnxEngine
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.engines.torch_evaluator import TorchEvaluator
from voxplain_server.graph.graph_reader import read_graph

from tests.server.engines.tiny_models import TINY_MODELS, TinyModel, apply, early, replacements

MakeEngine = Callable[[TinyModel], Evaluator]


def onnxruntime_cpu(tiny: TinyModel) -> Evaluator:
    return OnnxEngine(tiny.proto, tiny.model, threads=1)


def torch_float32(tiny: TinyModel) -> Evaluator:
    return TorchEvaluator(tiny.twin(torch.float32), tiny.model, dtype=torch.float32, threads=1)


def torch_float64(tiny: TinyModel) -> Evaluator:
    return TorchEvaluator(tiny.twin(torch.float64), tiny.model, dtype=torch.float64, threads=1)


def incremental_cpu(tiny: TinyModel) -> Evaluator:
    return IncrementalEvaluator(read_graph(tiny.proto), tiny.model, onnxruntime_cpu(tiny), threads=1)


WHOLE_PASSES: tuple[MakeEngine, ...] = (onnxruntime_cpu, torch_float32, torch_float64)
ENGINES: tuple[MakeEngine, ...] = (*WHOLE_PASSES, incremental_cpu)


def go_on() -> bool:
    return False


@pytest.fixture(params=TINY_MODELS, ids=lambda make: make.__name__, scope="module")
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return cast("Callable[[Path], TinyModel]", request.param)(tmp_path_factory.mktemp("models"))


@pytest.fixture(params=ENGINES, ids=lambda make: make.__name__, scope="module")
def engine(request: pytest.FixtureRequest, tiny: TinyModel) -> Evaluator:
    return cast("MakeEngine", request.param)(tiny)


@pytest.fixture(params=WHOLE_PASSES, ids=lambda make: make.__name__, scope="module")
def dense(request: pytest.FixtureRequest, tiny: TinyModel) -> Evaluator:
    return cast("MakeEngine", request.param)(tiny)


def scores(engine: Evaluator, tiny: TinyModel, perturbations: Sequence[Perturbation], *, batch_size: int = 3) -> np.ndarray:
    return engine.scores(tiny.case, tiny.score, perturbations, batch_size=batch_size, cancelled=go_on)


def assert_same_rows(engine: Evaluator, tiny: TinyModel, first: np.ndarray, second: np.ndarray) -> None:
    """Equal to the bit; up to rounding where what is computed together depends on the whole call."""
    if not engine.name.startswith("incremental"):
        assert first.tobytes() == second.tobytes()
        return
    base = tiny.score.of(engine.answer(tiny.case))[0]
    np.testing.assert_allclose(first, second, rtol=0, atol=5e-4 * np.abs(first - base).max())


def test_scores_are_those_of_the_perturbed_cases_in_their_order(engine: Evaluator, tiny: TinyModel) -> None:
    perturbations = replacements(tiny.case)
    expected = [tiny.score.of(engine.answer(apply(each, tiny.case)))[0] for each in perturbations]
    found = scores(engine, tiny, perturbations)
    assert found.dtype == np.float64
    assert len(set(found.tolist())) > 2
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * max(1.0, np.abs(expected).max()))


def test_all_engines_answer_alike(engine: Evaluator, tiny: TinyModel) -> None:
    exact = torch_float64(tiny)
    perturbations = replacements(tiny.case)
    expected = scores(exact, tiny, perturbations)
    base = tiny.score.of(exact.answer(tiny.case))[0]
    largest_effect = np.abs(expected - base).max()
    assert largest_effect > 0
    np.testing.assert_allclose(scores(engine, tiny, perturbations), expected, rtol=0, atol=5e-4 * largest_effect)


def test_a_perturbation_that_changes_nothing_has_the_base_score(engine: Evaluator, tiny: TinyModel) -> None:
    base = tiny.score.of(engine.answer(tiny.case))[0]
    nothing = Perturbation(regions=(), source=tiny.case.volumes)
    everywhere_the_same = [Perturbation(regions=each.regions, source=tiny.case.volumes) for each in replacements(tiny.case)]
    found = scores(engine, tiny, [nothing, *everywhere_the_same])
    assert np.all(np.abs(found - base) <= np.spacing(np.float32(abs(base))))


def test_equal_calls_give_equal_bytes(engine: Evaluator, tiny: TinyModel) -> None:
    perturbations = replacements(tiny.case)
    assert scores(engine, tiny, perturbations).tobytes() == scores(engine, tiny, perturbations).tobytes()


def test_rows_do_not_depend_on_their_company(engine: Evaluator, tiny: TinyModel) -> None:
    perturbations = replacements(tiny.case)
    together = scores(engine, tiny, perturbations)
    alone = np.array([scores(engine, tiny, [each])[0] for each in perturbations])
    assert_same_rows(engine, tiny, together, alone)


def test_other_batch_sizes_agree_within_the_bound(engine: Evaluator, tiny: TinyModel) -> None:
    perturbations = replacements(tiny.case)
    base = tiny.score.of(engine.answer(tiny.case))[0]
    one, five = (scores(engine, tiny, perturbations, batch_size=size) for size in (1, 5))
    assert np.abs(one - five).max() <= 5e-4 * np.abs(one - base).max()


def test_changes_of_one_batch_do_not_leak_into_the_next(engine: Evaluator, tiny: TinyModel) -> None:
    first = replacements(tiny.case, count=3)
    later = replacements(tiny.case, count=6)[4:]
    after_others = scores(engine, tiny, [*first, *later], batch_size=2)[-2:]
    assert_same_rows(engine, tiny, after_others, scores(engine, tiny, later, batch_size=2))


def test_no_perturbations_give_no_scores(engine: Evaluator, tiny: TinyModel) -> None:
    assert scores(engine, tiny, []).shape == (0,)


def test_the_volumes_of_the_case_stay_as_they_are(engine: Evaluator, tiny: TinyModel) -> None:
    before = [volume.tobytes() for volume in tiny.case.volumes]
    scores(engine, tiny, replacements(tiny.case))
    assert [volume.tobytes() for volume in tiny.case.volumes] == before


def test_a_cancelled_call_stops_before_the_next_batch(engine: Evaluator, tiny: TinyModel) -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    class Counted(Sequence[Perturbation]):  # counts how many perturbations were read
        def __init__(self) -> None:
            self.read = 0

        def __len__(self) -> int:
            return 1_000

        def __getitem__(self, index: int) -> Perturbation:  # type: ignore[override]
            self.read = max(self.read, index + 1)
            return replacements(tiny.case, count=1)[0]

    endless = Counted()
    with pytest.raises(errors.Cancelled):
        engine.scores(tiny.case, tiny.score, endless, batch_size=2, cancelled=cancelled)
    assert endless.read <= 4


def test_memory_does_not_grow_with_the_number_of_perturbations(
    dense: Evaluator, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = BatchBuffer.__init__

    def counting(self: BatchBuffer, *args: object, **options: object) -> None:
        original(self, *args, **options)  # type: ignore[arg-type]
        sizes.append(sum(array.nbytes for array in self.inputs))

    monkeypatch.setattr(BatchBuffer, "__init__", counting)
    perturbations = replacements(tiny.case, count=4)
    scores(dense, tiny, perturbations[:2], batch_size=2)
    scores(dense, tiny, perturbations * 5, batch_size=2)
    assert len(sizes) == 2
    assert sizes[0] == sizes[1]


def test_the_buffer_holds_one_batch_and_no_more(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    case_bytes = sum(volume.nbytes for volume in tiny.case.volumes)
    perturbations = replacements(tiny.case, count=40)
    tracemalloc.start()
    buffer = BatchBuffer(tiny.case, batch_size=4, dtypes=["float32"])
    held = sum(array.nbytes for array in buffer.inputs)
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for perturbation in perturbations:
        buffer.write(1, perturbation)
        buffer.restore(1, perturbation)
    grown = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert held == 4 * case_bytes
    assert grown < case_bytes / 2


def test_engines_have_stable_names(engine: Evaluator) -> None:
    assert engine.name in ("onnxruntime-cpu", "torch-cpu", "incremental-cpu")
