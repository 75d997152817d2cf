"""A row of the table: our seconds against Captum's with either allocator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.benchmarks.bounds import figure
from tests.benchmarks.figure import Figure


def row(name: str, ours: float, captum: Mapping[str, float], detail: str = "") -> Iterator[Figure]:
    """`limit/NAME/vs_captum_ALLOCATOR` for each allocator; `captum` holds its seconds for the same work."""
    for allocator, theirs in captum.items():
        told = f"{ours:.3g} s against {theirs:.4g} s"
        yield figure(f"limit/{name}/vs_captum_{allocator}", theirs / ours, "x", f"{told}; {detail}" if detail else told)


def captum_totals(method: str, captum: Mapping[str, float]) -> Iterator[Figure]:
    """`captum/METHOD/ALLOCATOR`: its seconds for a whole default call, which the whole-call row adds up."""
    for allocator, seconds in captum.items():
        yield figure(f"captum/{method}/{allocator}", seconds, "s", "one method, its defaults of the published study")
