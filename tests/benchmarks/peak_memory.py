"""The largest resident set of each worker, as the kernel keeps it: reading it costs the worker nothing."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.process_tree import tree_of


def forget_peaks(pid: int) -> None:
    """Begin anew in all descendants of the front."""
    for each in tree_of(pid)[1:]:
        try:
            Path(f"/proc/{each}/clear_refs").write_text("5")
        except OSError:
            continue


def worker_peak(pid: int) -> int:
    """Bytes of the largest peak since then."""
    peaks = [0]
    for each in tree_of(pid)[1:]:
        try:
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
        except OSError:
            continue
        peaks += [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return max(peaks)
