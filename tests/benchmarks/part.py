"""One part of the benchmarks in a process of its own.

python -m tests.benchmarks.part NAME [SUBJECT EDGE]     # prints a line for each figure
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from tests.benchmarks.figure import Figure

PARTS: dict[str, str] = {
    "upload": "upload:measure",
    "languages": "languages:measure",
    "overhead": "overhead:measure",
    "occlusion": "occlusion_rows:measure",
    "ablation": "coalition_rows:ablation",
    "shapley": "coalition_rows:shapley",
    "permutation": "coalition_rows:permutation",
    "regression": "coalition_rows:regression",
    "single-pass": "gradient_rows:single_pass",
    "many-passes": "gradient_rows:many_passes",
    "equal-error": "equal_error:measure",
    "memory": "memory:measure",
    "estimates": "estimates:measure",
    "each-method": "each_method:measure",
    "call": "whole_call:measure",
}
"""Name -> module and function. `call` comes last: it adds up what Captum took in the parts before it."""
MARK = "figure "
MEASURE_ANEW = ("estimates", "each-method")
"""Parts whose servers do not take engines and rates from the cache: they compare predictions with this minute's speed."""
MOST_SECONDS: dict[str, float] = {"call": 3600.0}
OTHERWISE_SECONDS = 1200.0


def run_part(name: str, *of: str, cache: Path, most_seconds: float | None = None) -> Iterator[Figure | str]:
    """The figures of a part as they come; a line of text where it fails.

    Args:
        name: of PARTS.
        of: subject and edge, where they are not those of the headline.
        cache: folder in which the parts' servers share what they measure of a model, once for this run and host.
        most_seconds: when it is ended.
    """
    module = f"tests.benchmarks.{PARTS[name].split(':')[0]}"
    if find_spec(module) is None:
        yield "not there"
        return
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.part", name, *of]
    environ = {key: value for key, value in os.environ.items() if key != "VOXPLAIN_CACHE"}
    if name not in MEASURE_ANEW:
        environ["VOXPLAIN_CACHE"] = str(cache)
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True)
    timer = threading.Timer(most_seconds or MOST_SECONDS.get(name, OTHERWISE_SECONDS), _end, [process.pid])
    timer.start()
    try:
        for line in process.stdout or ():
            if line.startswith(MARK):
                yield Figure(**json.loads(line.removeprefix(MARK)))
    finally:
        timer.cancel()
        if process.poll() is None:
            process.wait(60)
    if process.returncode:
        yield f"exit status {process.returncode}"


def main() -> None:
    """Run one part in this process."""
    module, function = PARTS[sys.argv[1]].split(":")
    of = [sys.argv[2], int(sys.argv[3])] if len(sys.argv) > 2 else []
    for figure in getattr(importlib.import_module(f"tests.benchmarks.{module}"), function)(*of):
        sys.stdout.write(MARK + json.dumps(dataclasses.asdict(figure)) + "\n")
        sys.stdout.flush()


def _end(pid: int) -> None:
    """End a part with all that it started: its session is its own."""
    os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
