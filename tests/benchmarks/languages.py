"""Upload of a whole BraTS case (136 MiB) from every client whose toolchain is there, over loopback."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.bounds import figure
from tests.benchmarks.figure import Figure
from tests.conformance.cases import write_cases
from tests.conformance.driver import Driver
from tests.conformance.language import LANGUAGES
from tests.serving import RunningServer

RUNS = 5
"""After one that warms up: compilers and connections."""


def measure() -> Iterator[Figure]:
    """Rate of each client, from its call until it hears that the server has every byte."""
    with tempfile.TemporaryDirectory() as scratch:
        cases = write_cases(Path(scratch))
        volumes = cases.volumes["mean"]
        payload = sum(Path(volume["file"]).stat().st_size for volume in volumes)
        with RunningServer(cases.models) as server:
            spec = {"model": "mean", "methods": [{"modalityShapley": {}}]}
            request = {"server": server.address, "spec": spec, "volumes": volumes}
            for language in LANGUAGES:
                if not language.present:
                    continue
                language.build()
                with Driver(language.command) as driver:
                    rates = [payload / _seconds_to_receive(driver, request) / 1e9 for _ in range(RUNS + 1)][1:]
                told = f"median of {RUNS}, {min(rates):.2f} to {max(rates):.2f}; checksums included"
                yield figure(f"upload/{language.name}_136MiB", float(np.median(rates)), "GB/s", told)


def _seconds_to_receive(driver: Driver, request: Mapping[str, Any]) -> float:
    events = list(driver.events(request))
    for event in events:
        complete = event["event"] == "progress" and 0 < event["bytes_total"] == event["bytes_received"]
        if complete or event["event"] == "prediction":
            return float(event["t"])
    raise RuntimeError(f"the upload did not end: {events[-1:]}")
