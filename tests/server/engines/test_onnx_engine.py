"""What ONNX Runtime's engine does beyond the promises of every engine."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from voxplain import errors
from voxplain_server.engines.onnx_engine import OnnxEngine, with_score_output
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.models.model import Activation

from tests.server.engines.tiny_models import early, fixed, probability, replacements, sigmoid


def go_on() -> bool:
    return False


def test_the_score_is_read_before_the_softmax(tmp_path: Path) -> None:
    tiny = probability(tmp_path)
    logits = OnnxEngine(tiny.proto, tiny.model, threads=1).answer(tiny.case)
    session = onnxruntime.InferenceSession(tiny.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    probabilities = session.run(None, {"image": np.stack(tiny.case.volumes)[None]})[0]
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), probabilities, atol=1e-6)
    assert abs(probabilities.sum() - 1) < 1e-5
    assert abs(logits.sum() - 1) > 1e-3


def test_the_given_model_is_not_changed(tmp_path: Path) -> None:
    tiny = sigmoid(tmp_path)
    before = tiny.proto.SerializeToString()
    changed = with_score_output(tiny.proto, tiny.model.output.score_name)
    assert tiny.proto.SerializeToString() == before
    assert [value.name for value in changed.graph.output] == [tiny.model.output.score_name]


def test_bytes_and_a_parsed_model_are_the_same(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    answers = [
        OnnxEngine(file, tiny.model, threads=1).answer(tiny.case) for file in (tiny.proto, tiny.proto.SerializeToString())
    ]
    np.testing.assert_array_equal(answers[0], answers[1])


def test_every_pass_has_the_shape_of_one_batch(tmp_path: Path) -> None:
    for make, rows in ((early, 4), (fixed, 1)):
        tiny = make(tmp_path / make.__name__)
        engine = OnnxEngine(tiny.proto, tiny.model, threads=1)
        shapes = _passes(engine)
        perturbations = [each for each in replacements(tiny.case, count=8) if each.regions]
        engine.scores(tiny.case, tiny.score, perturbations, batch_size=4, cancelled=go_on)
        assert shapes == [(rows, 2, 12, 14, 10)] * (6 // rows + (6 % rows > 0))


def test_unchanged_cases_cost_one_pass_together(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    engine = OnnxEngine(tiny.proto, tiny.model, threads=1)
    shapes = _passes(engine)
    nothing = Perturbation(regions=(), source=tiny.case.volumes)
    engine.scores(tiny.case, tiny.score, [nothing] * 50, batch_size=4, cancelled=go_on)
    assert shapes == [(1, 2, 12, 14, 10)]


def test_double_and_half_inputs_are_fed_in_their_own_type(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    reference = OnnxEngine(tiny.proto, tiny.model, threads=1).answer(tiny.case)
    for kind, tolerance in ((TensorProto.DOUBLE, 1e-6), (TensorProto.FLOAT16, 1e-2)):
        engine = OnnxEngine(_with_input_type(tiny.proto, kind), tiny.model, threads=1)
        np.testing.assert_allclose(engine.answer(tiny.case), reference, atol=tolerance)


def test_inputs_that_are_no_real_numbers_are_refused(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    with pytest.raises(errors.UnsupportedByModel) as caught:
        OnnxEngine(_with_input_type(tiny.proto, TensorProto.INT32), tiny.model, threads=1)
    assert caught.value.reason == "INPUT_TYPE"


def test_cuda_that_is_not_there_is_an_error_and_not_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = early(tmp_path)
    original = onnxruntime.InferenceSession

    def without_cuda(*args: object, providers: Sequence[object], **options: object) -> onnxruntime.InferenceSession:
        return original(*args, providers=["CPUExecutionProvider"], **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", without_cuda)
    with pytest.raises(errors.ServerUnavailable) as caught:
        OnnxEngine(tiny.proto, tiny.model, threads=1, device="cuda")
    assert caught.value.reason == "DEVICE_UNAVAILABLE"


def test_a_shrunk_engine_answers_as_before(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    engine = OnnxEngine(tiny.proto, tiny.model, threads=1)
    engine.shrink()
    perturbations = replacements(tiny.case)
    before = engine.scores(tiny.case, tiny.score, perturbations, batch_size=3, cancelled=go_on)
    engine.shrink()
    engine.shrink()
    np.testing.assert_array_equal(engine.scores(tiny.case, tiny.score, perturbations, batch_size=3, cancelled=go_on), before)


def test_an_answer_without_batch_axis_gets_one(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    proto = onnx.ModelProto()
    proto.CopyFrom(tiny.proto)
    proto.graph.node.append(helper.make_node("Squeeze", ["pred"], ["flat"]))
    output = replace(tiny.model.output, name="flat", score_name="flat", activation=Activation.NONE, has_batch_axis=False)
    model = replace(tiny.model, output=output, batched=False)
    case = replace(tiny.case, model=model)
    answer = OnnxEngine(proto, model, threads=1).answer(case)
    np.testing.assert_array_equal(answer, OnnxEngine(tiny.proto, tiny.model, threads=1).answer(tiny.case))


def test_an_interrupted_engine_raises_cancelled_and_works_again(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    engine = OnnxEngine(tiny.proto, tiny.model, threads=1)
    (changed,) = replacements(tiny.case, count=1)
    running = threading.Event()

    class Endless(Sequence[Perturbation]):
        def __len__(self) -> int:
            return 10_000_000

        def __getitem__(self, index: int) -> Perturbation:  # type: ignore[override]
            running.set()
            return changed

    def interrupt() -> None:
        running.wait(timeout=30)
        engine.interrupt()

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(errors.Cancelled):
        engine.scores(tiny.case, tiny.score, Endless(), batch_size=2, cancelled=go_on)
    interrupter.join()
    assert np.isfinite(engine.scores(tiny.case, tiny.score, [changed], batch_size=2, cancelled=go_on)).all()


def _passes(engine: OnnxEngine) -> list[tuple[int, ...]]:
    """The shapes of the first input of all passes from now on."""
    shapes: list[tuple[int, ...]] = []
    session = engine._session

    class Counting:
        def run(self, names: object, feeds: dict[str, np.ndarray], options: object) -> object:
            shapes.append(next(iter(feeds.values())).shape)
            return session.run(names, feeds, options)

    engine._session = Counting()
    return shapes


def _with_input_type(proto: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    changed.graph.input[0].type.tensor_type.elem_type = kind
    for node in changed.graph.node:
        node.input[:] = ["as_float" if name == "image" else name for name in node.input]
    changed.graph.node.insert(0, helper.make_node("Cast", ["image"], ["as_float"], to=TensorProto.FLOAT))
    return changed
