"""What the incremental engine promises beside equal scores: what it does not compute, what it leaves to others, its end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from voxplain import errors
from voxplain_server.engines import incremental_pass
from voxplain_server.engines.incremental_engine import IncrementalEvaluator
from voxplain_server.engines.onnx_engine import OnnxEngine
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.engines.torch_evaluator import TorchEvaluator
from voxplain_server.features.region import Region
from voxplain_server.graph.graph_reader import read_graph

from tests.server.engines.incremental_cases import noise
from tests.server.engines.tiny_models import TinyModel, early, late, replacements, segmentation


def engine(tiny: TinyModel, *, max_share: float = np.inf, dtype: torch.dtype = torch.float32) -> IncrementalEvaluator:
    dense = OnnxEngine(tiny.proto, tiny.model, threads=1)
    return IncrementalEvaluator(read_graph(tiny.proto), tiny.model, dense, dtype=dtype, threads=2, max_share=max_share)


def scores(evaluator: IncrementalEvaluator, tiny: TinyModel, asked: list[Perturbation]) -> np.ndarray:
    return evaluator.scores(tiny.case, tiny.score, asked, batch_size=1, cancelled=lambda: False)


def window(tiny: TinyModel, modality: int = 0, edge: int = 3) -> Perturbation:
    shape = tiny.case.volumes[modality].shape
    return Perturbation(regions=(Region(modality, tuple(slice(2, 2 + edge) for _ in shape)),), source=noise(tiny.case))


def test_nothing_is_computed_for_what_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = early(tmp_path)
    evaluator = engine(tiny)
    base = tiny.score.of(evaluator.answer(tiny.case))[0]

    def computed(*args: object) -> None:
        raise AssertionError("something was computed")

    monkeypatch.setattr(incremental_pass.IncrementalPass, "run", computed)
    monkeypatch.setattr(OnnxEngine, "scores", computed)
    same = [Perturbation(regions=each.regions, source=tiny.case.volumes) for each in replacements(tiny.case)]
    assert scores(evaluator, tiny, same).tolist() == [base] * len(same)


def test_a_branch_whose_input_did_not_change_is_not_run(tmp_path: Path) -> None:
    tiny = late(tmp_path)
    evaluator = engine(tiny, dtype=torch.float64)
    prepared = evaluator._prepare(tiny.case)
    ran: list[str] = []
    for number, (step, layer) in enumerate(zip(prepared.locality.steps, list(prepared.steps._layers), strict=True)):

        def counted(*args: object, step: object = step, layer: object = layer) -> object:
            ran.append(step.output)  # type: ignore[attr-defined]
            return layer(*args)  # type: ignore[operator]

        prepared.steps._layers[number] = counted  # type: ignore[call-overload]
    convolutions = [step.output for step in prepared.locality.steps if step.node.op == "Conv"]
    found = {}
    for modality in (0, 1):
        evaluator.answer(tiny.case)
        ran.clear()
        scores(evaluator, tiny, [window(tiny, modality)])
        found[modality] = set(ran) & set(convolutions)
    assert found[0] and found[1]
    assert not found[0] & found[1]
    assert found[0] | found[1] == set(convolutions)


def test_windows_on_two_branches_are_not_grouped(tmp_path: Path) -> None:
    tiny = late(tmp_path)
    exact = TorchEvaluator(tiny.twin(), tiny.model, dtype=torch.float64)
    asked = [window(tiny, 0), window(tiny, 1), window(tiny, 0, edge=2), window(tiny, 1, edge=2)]
    expected = exact.scores(tiny.case, tiny.score, asked, batch_size=1, cancelled=lambda: False)
    np.testing.assert_allclose(scores(engine(tiny, dtype=torch.float64), tiny, asked), expected, rtol=1e-10)


def test_what_is_left_to_the_dense_engine_differs_from_the_base_as_it_says(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    evaluator = engine(tiny, max_share=0.0)
    dense = OnnxEngine(tiny.proto, tiny.model, threads=1)
    asked = replacements(tiny.case, count=4)
    nothing = Perturbation(regions=(), source=tiny.case.volumes)
    of_dense = dense.scores(tiny.case, tiny.score, [nothing, *asked], batch_size=1, cancelled=lambda: False)
    found = scores(evaluator, tiny, [nothing, *asked])
    assert found[0] == tiny.score.of(evaluator.answer(tiny.case))[0]
    np.testing.assert_allclose(found[1:] - found[0], of_dense[1:] - of_dense[0], rtol=0, atol=1e-15)


@pytest.mark.parametrize("max_share", [np.inf, 0.0])
def test_cancelling_stops(tmp_path: Path, max_share: float) -> None:
    tiny = early(tmp_path)
    evaluator = engine(tiny, max_share=max_share)
    evaluator.answer(tiny.case)
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 30

    with pytest.raises(errors.Cancelled):
        evaluator.scores(tiny.case, tiny.score, [window(tiny)] * 40, batch_size=1, cancelled=cancelled)
    assert np.isfinite(scores(evaluator, tiny, [window(tiny)])).all()


def test_an_interrupt_stops_the_call_under_way_and_not_the_next(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    evaluator = engine(tiny)

    def interrupting() -> bool:
        evaluator.interrupt()
        return False

    with pytest.raises(errors.Cancelled):
        evaluator.scores(tiny.case, tiny.score, [window(tiny)], batch_size=1, cancelled=interrupting)
    assert np.isfinite(scores(evaluator, tiny, [window(tiny)])).all()


def test_memory_of_a_case_is_let_go_of(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    evaluator = engine(tiny)
    before = scores(evaluator, tiny, [window(tiny)])
    evaluator.shrink()
    assert evaluator._held is None
    assert scores(evaluator, tiny, [window(tiny)]).tobytes() == before.tobytes()


def test_float32_is_as_near_to_the_truth_as_float32_can_be(tmp_path: Path) -> None:
    tiny = segmentation(tmp_path)
    asked = replacements(tiny.case)
    exact = TorchEvaluator(tiny.twin(), tiny.model, dtype=torch.float64)
    nothing = Perturbation(regions=(), source=tiny.case.volumes)
    truth = exact.scores(tiny.case, tiny.score, [nothing, *asked], batch_size=1, cancelled=lambda: False)
    found = scores(engine(tiny), tiny, [nothing, *asked])
    effects = truth[1:] - truth[0]
    assert np.abs(found[1:] - found[0] - effects).max() <= 1e-5 * np.abs(effects).max()


def test_the_head_behind_a_mean_over_space_is_more_precise_than_float32(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    exact = TorchEvaluator(tiny.twin(), tiny.model, dtype=torch.float64)
    volumes = tiny.case.volumes
    spacing = float(np.spacing(np.float32(abs(tiny.score.of(exact.answer(tiny.case))[0]))))
    ours, wrong = engine(tiny), []
    nothing = Perturbation(regions=(), source=volumes)
    for place in np.ndindex(3, 3, 3):
        # A nudge of one voxel moves the score by about the spacing of float32 around it.
        voxel = tuple(slice(3 + 2 * at, 4 + 2 * at) for at in place)
        source = tuple(volume.copy() for volume in volumes)
        source[0][voxel] += np.float32(1e-4)
        nudge = Perturbation(regions=(Region(0, voxel),), source=source)
        truth = np.diff(exact.scores(tiny.case, tiny.score, [nothing, nudge], batch_size=1, cancelled=lambda: False))[0]
        assert abs(truth) < 10 * spacing
        wrong.append(np.diff(scores(ours, tiny, [nothing, nudge]))[0] - truth)
    # Two scores rounded to float32 differ by 0.41 spacings more or less than they should.
    assert np.sqrt(np.mean(np.square(wrong))) < 0.15 * spacing


def test_names_say_where_it_runs(tmp_path: Path) -> None:
    assert engine(early(tmp_path)).name == "incremental-cpu"
