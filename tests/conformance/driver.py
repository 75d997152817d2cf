"""A driver's process: one request in, events out."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
SCENARIO_SECONDS = 300.0
STOP_SECONDS = 10.0


class DriverFailed(RuntimeError):
    """It ended, or did not end a scenario in time."""


class Driver:
    """A driver that runs; leave the `with` block to end it.

    Args:
        command: starts it.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def events(self, request: Mapping[str, Any], *, seconds: float = SCENARIO_SECONDS) -> Iterator[dict[str, Any]]:
        """Send a request and yield its events, `end` left out.

        Raises:
            DriverFailed: it ended first, said what is no JSON, or took longer than `seconds`.
        """
        timer = threading.Timer(seconds, self._process.kill)
        timer.start()
        try:
            yield from self._talk(json.dumps(request))
        finally:
            timer.cancel()

    def stop(self) -> None:
        """Close its input and wait; kill it where that does not help."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _talk(self, line: str) -> Iterator[dict[str, Any]]:
        if self._process.stdin is None or self._process.stdout is None:
            raise DriverFailed("the driver has no pipes")
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise DriverFailed("the driver has ended") from error
        for answer in self._process.stdout:
            try:
                event = json.loads(answer)
            except json.JSONDecodeError as error:
                raise DriverFailed(f"no JSON: {answer[:200]}") from error
            if event["event"] == "end":
                return
            yield event
        raise DriverFailed("the driver ended, or was ended after its time, before the scenario did")
