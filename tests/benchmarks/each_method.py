"""For each method by itself: the memory of a worker, how soon the first snapshot comes, and what was predicted of its time."""

from __future__ import annotations

import time
from collections.abc import Iterator

from voxplain_client import MapReceived, Progress

from tests.benchmarks.bounds import figure
from tests.benchmarks.estimates import SIXTEEN, badly_predicted, donors, few_of, predicted_over_actual
from tests.benchmarks.figure import Figure
from tests.benchmarks.our_calls import OurServer, our_server
from tests.benchmarks.peak_memory import forget_peaks, worker_peak
from tests.benchmarks.process_tree import MIB
from tests.benchmarks.subject import CLASS_INDEX
from tests.benchmarks.subjects import SUBJECTS

SNAPSHOT_SECONDS = 0.3
ENOUGH: dict[str, dict[str, int]] = {
    "shapley-value-sampling": {"permutations": 2},
    "kernel-shap": {"samples": 80},
    "lime": {"samples": 250},
}
"""For an estimate of these; more samples need no more memory (part `memory`)."""
SNAPPED = ("occlusion", "feature-ablation", "feature-permutation", *ENOUGH)


def measure(name: str = "vgg-like", edge: int = 128) -> Iterator[Figure]:
    """Two calls for each method that makes snapshots: until the first one, and without any. One call for the others."""
    with our_server(SUBJECTS[name], edge) as ours:
        ours.explain(["gradient"])
        estimates = []
        for method in SIXTEEN:
            forget_peaks(ours.pid)
            if method in SNAPPED:
                waited, done = _first_snapshot(ours, method)
                told = f"after {done} evaluations, from the first word that the method computes"
                yield figure(f"snapshot/{method.replace('-', '_')}", waited, "s", told)
            estimates.append(predicted_over_actual(ours, method))
            yield estimates[-1]
            yield figure(f"memory/worker_{method.replace('-', '_')}", worker_peak(ours.pid) / MIB, "MiB", "resident set")
        yield badly_predicted(edge, estimates)


def _first_snapshot(ours: OurServer, name: str) -> tuple[float, int]:
    """Seconds from the first sign of computing to the first map, and its evaluations; the call is cancelled then.

    A method that is done before a snapshot is due sends its final map at once.
    """
    began: float | None = None
    with ours.client.explain(
        model=ours.subject.name,
        volumes=ours.subject.volumes(ours.edge),
        methods=[few_of(name, ENOUGH)],
        target=CLASS_INDEX,
        background=donors(ours, name),
        snapshot_interval=SNAPSHOT_SECONDS,
    ) as explanation:
        for event in explanation:
            if began is None and isinstance(event, Progress) and event.stage == Progress.STAGE_COMPUTING:
                began = time.perf_counter()
            if isinstance(event, MapReceived) and began is not None:
                return time.perf_counter() - began, event.header.evaluations_done
    raise RuntimeError("the call ended without a map")
