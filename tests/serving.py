"""A real `voxplain-server` in a process of its own, for tests and benchmarks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

READY_SECONDS = 180.0
STOP_SECONDS = 60.0


class ServerNotReady(RuntimeError):
    """It ended, or said nothing, before it was ready; the message holds what it logged."""


@dataclass
class RunningServer:
    """A server on free ports; leave the `with` block, or call `stop`, to end it.

    Attributes:
        models: the models folder.
        arguments: further arguments of the command.
        environ: variables beside the inherited ones.
        before: words before the command, of something that runs it and keeps its process id.
        ready_seconds: how long it may take until it is ready.
        address, health_address, metrics_url: where it answers, once it runs.
        ready: the ready line.
        exit_status: set when it has stopped.
    """

    models: Path
    arguments: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    before: Sequence[str] = ()
    ready_seconds: float = READY_SECONDS
    address: str = ""
    health_address: str = ""
    metrics_url: str = ""
    ready: dict[str, object] = field(default_factory=dict)
    exit_status: int | None = None
    _process: subprocess.Popen[str] | None = None
    _log: IO[str] | None = None

    def __enter__(self) -> RunningServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the front; compute workers are its children."""
        return self._running().pid

    @property
    def log(self) -> str:
        """What it has logged so far."""
        if self._log is None:
            return ""
        self._log.seek(0)
        return self._log.read()

    def start(self) -> None:
        """Start it and wait for the ready line.

        Raises:
            ServerNotReady: it did not come.
        """
        # Appending, because reading the log moves the position that the server shares.
        self._log = tempfile.TemporaryFile("a+")  # noqa: SIM115
        command = [sys.executable, "-m", "voxplain_server", "--models", str(self.models)]
        ports = ["--port", "0", "--health-port", "0", "--metrics-port", "0"]
        self._process = subprocess.Popen(
            [*self.before, *command, *ports, *self.arguments],
            env={**os.environ, **self.environ},
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        # A timer and not a select on the pipe: text streams buffer.
        timer = threading.Timer(self.ready_seconds, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline() if self._process.stdout is not None else ""
        finally:
            timer.cancel()
        if not line:
            log = self.log
            self.stop()
            raise ServerNotReady(f"no ready line; it logged:\n{log}")
        self.ready = json.loads(line)
        self.address = f"127.0.0.1:{self.ready['port']}"
        self.health_address = f"127.0.0.1:{self.ready['health_port']}"
        self.metrics_url = f"http://127.0.0.1:{self.ready['metrics_port']}/metrics"

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the front."""
        self._running().send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end; returns the exit status."""
        self.exit_status = self._running().wait(seconds)
        return self.exit_status

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that does not help in time."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        self.exit_status = process.wait()
        if process.stdout is not None:
            process.stdout.close()
        if self._log is not None:
            self._log.close()
        self._process = self._log = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the server does not run")
        return self._process
