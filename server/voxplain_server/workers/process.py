"""One compute process: spawned with an environment of its own, talked to over a channel, killed without harm to others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from google.protobuf.message import Message
from voxplain.worker.v1 import worker_pb2

from voxplain_server.models.remote_access import NO_REMOTE, RemoteAccess
from voxplain_server.workers.channel import AsyncChannel, open_pair
from voxplain_server.workers.faults import STDERR_MARK, read_told

log = logging.getLogger(__name__)

# Measured: with glibc's defaults every activation over 32 MiB is mapped and faulted in anew at each layer, which costs
# torch a factor of two on 3D networks. Nothing returns to the system by itself then: workers call malloc_trim after a call.
_ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "268435456"}
# Measured with both cores busy elsewhere: threads that spin while they wait for one another make small boxes take five to nine
# times as long; with idle cores sleeping costs nothing.
_THREADS_WAIT = {"OMP_WAIT_POLICY": "PASSIVE"}
_MAX_STDERR_LINE = 512
_MAX_STDERR_LINES = 1000


def worker_environment(threads: int, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: ours without the server's own variables and OpenTelemetry's (which may hold secrets), with
    the allocator and thread settings that must be there before the process starts."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(("VOXPLAIN_", "OTEL_"))}
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), str(threads))
    return kept | _ALLOCATOR | _THREADS_WAIT | counts | {"PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """How a worker is started.

    Attributes:
        threads: compute threads.
        device: "cpu" or "cuda".
        memory_bytes: bound of its address space; 0: none. CUDA reserves more than any sensible bound.
        preload: whether it imports torch before the first gradient is asked for.
        remote: which inference servers it may ask for models that lie there.
    """

    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    memory_bytes: int = 0
    preload: bool = False
    remote: RemoteAccess = NO_REMOTE

    def arguments(self) -> list[str]:
        """As the worker's command line."""
        return [
            *("--threads", str(self.threads)),
            *("--device", self.device),
            *("--memory", str(0 if self.device == "cuda" else self.memory_bytes)),
            *(["--preload"] if self.preload else []),
            *self.remote.arguments(),
        ]


class WorkerProcess:
    """A compute process and the front's end of its channel.

    Args:
        start: how it is started.
        on_event: called with every event and its descriptors, which are then its own to close.
        on_lost: called once when the process is gone or speaks no sense.
    """

    def __init__(
        self,
        start: WorkerStart,
        *,
        on_event: Callable[[worker_pb2.Event, list[int]], None],
        on_lost: Callable[[], None],
    ) -> None:
        ours, theirs = open_pair()
        ends = ["--channel", str(theirs.fileno()), "--parent", str(os.getpid())]
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "voxplain_server.workers.compute", *ends, *start.arguments()],
                env=worker_environment(start.threads, os.environ),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._stderr = _StderrFilter(self._popen)
        self._channel = AsyncChannel(ours, worker_pb2.Event, on_message=on_event, on_closed=on_lost)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._popen.pid

    def send(self, command: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a command; the descriptors stay the caller's."""
        self._channel.send(command, descriptors)

    async def end(self) -> int:
        """Kill the process and wait until it is gone. Returns its exit status; may be called more than once."""
        self._channel.close()
        with contextlib.suppress(ProcessLookupError):
            self._popen.kill()
        status = await asyncio.get_running_loop().run_in_executor(None, self._popen.wait)
        self._stderr.close()
        return status


class _StderrFilter:
    """Lets pass to the log only the lines that we wrote ourselves: libraries may print what they were given."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        if popen.stderr is None:
            raise ValueError("the worker's standard error must be a pipe")
        self._pipe = popen.stderr
        self._pid = popen.pid
        self._rest = b""
        self._lines_left = _MAX_STDERR_LINES
        self._loop = asyncio.get_running_loop()
        os.set_blocking(self._pipe.fileno(), False)
        self._loop.add_reader(self._pipe.fileno(), self._readable)

    def close(self) -> None:
        """Read what is left and let go of the pipe."""
        if not self._pipe.closed:
            self._readable()
        if not self._pipe.closed:
            self._loop.remove_reader(self._pipe.fileno())
            self._pipe.close()

    def _readable(self) -> None:
        try:
            data = os.read(self._pipe.fileno(), 65536)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._pipe.fileno())
            self._pipe.close()
            return
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_MAX_STDERR_LINE:]
        for line in lines:
            if line.startswith(STDERR_MARK.encode()) and self._lines_left > 0:
                self._lines_left -= 1
                told = read_told(line[len(STDERR_MARK) : _MAX_STDERR_LINE].decode("ascii", "replace"))
                if told is not None:
                    event, fields = told
                    log.warning(event, extra={"fields": {"pid": self._pid, **fields}})
