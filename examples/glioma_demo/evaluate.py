"""Measure the shipped model on fresh cases: `python -m examples.glioma_demo.evaluate [--cases 600] [--record]`."""

import argparse
import sys
from dataclasses import asdict, dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from examples.glioma_demo.bundle import BUNDLE, INPUT_NAME, OUTPUT_NAME, write_metadata
from examples.glioma_demo.case import Case, make_case, swap_shape
from examples.glioma_demo.dataset import TEST_SEEDS, normalise, stack_volumes

_LEAST_ACCURACY = 0.95
_LEAST_T1C_FLIPS = 0.90
_MOST_FLAIR_FLIPS = 0.10


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the model does on fresh cases.

    Attributes:
        cases: how many.
        accuracy: share of right predictions.
        accuracy_flair_agrees, accuracy_flair_disagrees: the same where FLAIR shows T1c's shape and where it does not.
        flips_t1c_swapped: share of predictions that change when only T1c's tumour is replaced by the other shape.
        flips_flair_swapped: the same for FLAIR.
    """

    cases: int
    accuracy: float
    accuracy_flair_agrees: float
    accuracy_flair_disagrees: float
    flips_t1c_swapped: float
    flips_flair_swapped: float

    @property
    def passes(self) -> bool:
        """Whether the model relies on T1c as the experiment demands."""
        return (
            self.accuracy >= _LEAST_ACCURACY
            and self.flips_t1c_swapped >= _LEAST_T1C_FLIPS
            and self.flips_flair_swapped <= _MOST_FLAIR_FLIPS
        )


def open_model() -> onnxruntime.InferenceSession:
    """The shipped model on one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(BUNDLE / "model.onnx", options, providers=["CPUExecutionProvider"])


def predict_logits(session: onnxruntime.InferenceSession, case: Case) -> NDArray[np.float32]:
    """The two logits of `case`."""
    logits = session.run([OUTPUT_NAME], {INPUT_NAME: normalise(stack_volumes(case.volumes))[None]})[0]
    return np.array(logits[0], dtype=np.float32)


def evaluate(count: int) -> Evaluation:
    """Predict `count` fresh cases, each also with T1c's and with FLAIR's tumour replaced."""
    session = open_model()
    right, agrees, t1c_flips, flair_flips = (np.zeros(count, dtype=np.bool_) for _ in range(4))
    with Progress() as progress:
        for row, seed in enumerate(progress.track(TEST_SEEDS[:count], description="fresh cases")):
            case = make_case(seed)
            predicted = int(predict_logits(session, case).argmax())
            right[row] = predicted == case.label
            agrees[row] = case.flair_agrees
            t1c_flips[row] = int(predict_logits(session, swap_shape(case, "t1c")).argmax()) != predicted
            flair_flips[row] = int(predict_logits(session, swap_shape(case, "flair")).argmax()) != predicted
    return Evaluation(
        cases=count,
        accuracy=float(right.mean()),
        accuracy_flair_agrees=float(right[agrees].mean()),
        accuracy_flair_disagrees=float(right[~agrees].mean()),
        flips_t1c_swapped=float(t1c_flips.mean()),
        flips_flair_swapped=float(flair_flips.mean()),
    )


def main() -> None:
    """Print the figures beside their bounds; exit with 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=600, help="fresh cases to predict (at least 20)")
    parser.add_argument("--record", action="store_true", help="write the figures into the bundle's metadata.json")
    arguments = parser.parse_args()
    if arguments.cases < 20:
        parser.error("--cases must be at least 20, or the shares mean nothing")
    evaluation = evaluate(arguments.cases)
    Console().print(_tabulate(evaluation))
    if arguments.record:
        write_metadata(BUNDLE / "metadata.json", metrics=asdict(evaluation))
    sys.exit(0 if evaluation.passes else 1)


def _tabulate(evaluation: Evaluation) -> Table:
    table = Table(title=f"glioma-demo on {evaluation.cases} fresh cases")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("bound", justify="right")
    for name, value, bound in (
        ("accuracy", evaluation.accuracy, f">= {_LEAST_ACCURACY:.2f}"),
        ("accuracy where FLAIR agrees with T1c", evaluation.accuracy_flair_agrees, ""),
        ("accuracy where FLAIR disagrees", evaluation.accuracy_flair_disagrees, ""),
        ("predictions that flip with T1c's shape", evaluation.flips_t1c_swapped, f">= {_LEAST_T1C_FLIPS:.2f}"),
        ("predictions that flip with FLAIR's shape", evaluation.flips_flair_swapped, f"<= {_MOST_FLAIR_FLIPS:.2f}"),
    ):
        table.add_row(name, f"{value:.4f}", bound)
    return table


if __name__ == "__main__":
    main()
