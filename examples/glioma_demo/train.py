"""Train the demo network and write its bundle: `python -m examples.glioma_demo.train`."""

import argparse

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from examples.glioma_demo.bundle import BUNDLE, export_network, write_metadata
from examples.glioma_demo.dataset import TRAINING_SEEDS, VALIDATION_SEEDS, Dataset, make_dataset
from examples.glioma_demo.network import ShapeNet, count_parameters, fold_batch_norm
from examples.glioma_demo.training import Epoch, fit, predict, seed_everything

_VALIDATION_CASES = 200


def main() -> None:
    """Make the cases, train on the CPU, print the accuracy on validation cases, export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1600, help="training cases; a quarter as many without an answer are added")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seed_everything(arguments.seed)
    console = Console()
    with Progress(console=console) as progress:
        count = arguments.cases
        training = _make(progress, "training cases", TRAINING_SEEDS[:count], TRAINING_SEEDS[count : count + count // 4])
        validation = _make(progress, "validation cases", VALIDATION_SEEDS[:_VALIDATION_CASES], range(0))
    console.print(f"{len(training.targets)} training and {len(validation.targets)} validation cases made")
    network = ShapeNet()
    console.print(f"{count_parameters(network)} parameters")

    def report(epoch: Epoch) -> None:
        console.print(
            f"{epoch.stage}, epoch {epoch.number}: loss {epoch.loss:.4f}, accuracy while training {epoch.accuracy:.4f}"
        )

    fit(network, training, seed=arguments.seed, report=report)
    folded = fold_batch_norm(network)
    accuracy = float(np.mean(predict(folded, validation).argmax(axis=1) == validation.targets.argmax(axis=1)))
    console.print(f"accuracy on {_VALIDATION_CASES} validation cases: {accuracy:.4f}")
    BUNDLE.mkdir(parents=True, exist_ok=True)
    export_network(folded, BUNDLE / "model.onnx")
    write_metadata(BUNDLE / "metadata.json", metrics={"accuracy": accuracy})
    console.print("bundle written; measure it with python -m examples.glioma_demo.evaluate --record")


def _make(progress: Progress, title: str, seeds: range, unanswerable: range) -> Dataset:
    task = progress.add_task(title, total=len(seeds) + len(unanswerable))
    return make_dataset(seeds, unanswerable=unanswerable, report=lambda done: progress.update(task, completed=done))


if __name__ == "__main__":
    main()
