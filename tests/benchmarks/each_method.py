"""For each method by itself: the memory that a worker needs, and how soon the first snapshot comes."""

from __future__ import annotations

import time
from collections.abc import Iterator

from voxplain.v1 import explain_pb2, method_pb2
from voxplain_client import MapReceived, Progress
from voxplain_client.method_names import make_method

from tests.benchmarks.bounds import figure
from tests.benchmarks.figure import Figure
from tests.benchmarks.our_calls import OurServer, our_server
from tests.benchmarks.peak_memory import forget_peaks, worker_peak
from tests.benchmarks.process_tree import MIB
from tests.benchmarks.subject import CLASS_INDEX
from tests.benchmarks.subjects import SUBJECTS
from tests.benchmarks.whole_call import SIXTEEN

SNAPSHOT_SECONDS = 0.3
SHORTER: dict[str, dict[str, int]] = {
    "shapley-value-sampling": {"permutations": 2},
    "kernel-shap": {"samples": 80},
    "lime": {"samples": 250},
}
"""Enough for an estimate; more samples need no more memory."""
SNAPPED = ("occlusion", "feature-ablation", "feature-permutation", *SHORTER)
WINDOWS = 8192


def measure(name: str = "vgg-like", edge: int = 128) -> Iterator[Figure]:
    """One call for each method."""
    with our_server(SUBJECTS[name], edge) as ours:
        for method in SIXTEEN:
            forget_peaks(ours.pid)
            waited, done = _first_snapshot(ours, method)
            yield figure(f"memory/worker_{method.replace('-', '_')}", worker_peak(ours.pid) / MIB, "MiB", "resident set")
            if waited is not None:
                told = f"after {done} evaluations, from the first word that the method computes"
                yield figure(f"snapshot/{method.replace('-', '_')}", waited, "s", told)


def _first_snapshot(ours: OurServer, name: str) -> tuple[float | None, int]:
    """Seconds from the first sign of computing to the first map, and its evaluations; None where no snapshots are made.

    A method that is done before a snapshot is due sends its final map at once.
    """
    method: method_pb2.Method = make_method(name)
    for field, value in SHORTER.get(name, {}).items():
        setattr(getattr(method, name.replace("-", "_")), field, value)
    volumes = ours.subject.volumes(ours.edge)
    donor = {modality: volume[::-1].copy() for modality, volume in volumes.items()}
    began: float | None = None
    found: tuple[float | None, int] = (None, 0)
    with ours.client.explain(
        model=ours.subject.name,
        volumes=volumes,
        methods=[method],
        target=CLASS_INDEX,
        background=[donor] if name == "feature-permutation" else [],
        snapshot_interval=SNAPSHOT_SECONDS if name in SNAPPED else None,
        budget=explain_pb2.Budget(max_evaluations=WINDOWS) if name == "occlusion" else None,
    ) as explanation:
        for event in explanation:
            if began is None and isinstance(event, Progress) and event.stage == Progress.STAGE_COMPUTING:
                began = time.perf_counter()
            if found[0] is None and isinstance(event, MapReceived) and name in SNAPPED and began is not None:
                found = time.perf_counter() - began, event.header.evaluations_done
    return found
