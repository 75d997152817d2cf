"""All sixteen methods of one case, with their defaults, in one call over gRPC: the call as its client sees it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from voxplain.v1 import explain_pb2

from tests.benchmarks.bounds import figure
from tests.benchmarks.estimates import SIXTEEN
from tests.benchmarks.figure import Figure
from tests.benchmarks.our_calls import OurServer, compute_seconds, our_server
from tests.benchmarks.peak_memory import forget_peaks, worker_peak
from tests.benchmarks.peer import ALLOCATORS
from tests.benchmarks.process_tree import MIB
from tests.benchmarks.report import read_report
from tests.benchmarks.rows import row
from tests.benchmarks.subjects import SUBJECTS


def measure(name: str = "vgg-like", edge: int = 128) -> Iterator[Figure]:
    """The whole call, from the first byte sent to the last one received; Captum's seconds are those of this report."""
    with our_server(SUBJECTS[name], edge) as ours:
        forget_peaks(ours.pid)
        seconds, results = _explain(ours)
        peak = worker_peak(ours.pid)
    yield figure("memory/worker_all_sixteen", peak / MIB, "MiB", "largest resident set of a worker during that call")
    held = read_report()
    captum = {
        allocator: sum(held[f"captum/{method}/{allocator}"].value for method in SIXTEEN)
        for allocator in ALLOCATORS
        if all(f"captum/{method}/{allocator}" in held for method in SIXTEEN)
    }
    spent = {method: compute_seconds(results, method) for method in SIXTEEN}
    longest = ", ".join(f"{method} {each:.0f} s" for method, each in sorted(spent.items(), key=lambda item: -item[1])[:5])
    saved = sum(results[method].evaluations_saved for method in SIXTEEN)
    done = sum(results[method].evaluations_done for method in SIXTEEN)
    yield figure("call/all_sixteen", seconds, "s", f"the whole grid of windows, noise fill; {longest}")
    yield figure("call/evaluations_saved", saved / done, "share", f"{saved} of {done} evaluations change nothing or are shared")
    yield from row("all_sixteen_one_call", seconds, captum, "the whole call over gRPC, supervoxels and transfer included")
    windows = {a: held[f"captum/occlusion/{a}"].value for a in ALLOCATORS if f"captum/occlusion/{a}" in held}
    yield from row("occlusion_11_5_noise_whole_grid", spent["occlusion"], windows, "all 62,500 windows, inside that call")


def _explain(ours: OurServer) -> tuple[float, Mapping[str, explain_pb2.MethodResult]]:
    donor = {modality: volume[::-1].copy() for modality, volume in ours.subject.volumes(ours.edge).items()}
    start = time.perf_counter()
    result = ours.explain([*SIXTEEN], background=[donor])
    return time.perf_counter() - start, result.results
