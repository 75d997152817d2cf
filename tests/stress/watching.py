"""What a flooded server looks like from outside: its memory, and how long a good client waits for its health."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from tests.serving import RunningServer

_EVERY_S = 0.02


@dataclass(slots=True)
class Seen:
    """What was seen meanwhile.

    Attributes:
        rest_bytes, peak_bytes: of the front: its own memory and every memory file that it holds.
        waits: seconds of each health call.
        unhealthy: health calls that failed or did not say SERVING.
    """

    rest_bytes: int = 0
    peak_bytes: int = 0
    waits: list[float] = field(default_factory=list)
    unhealthy: int = 0


def front_bytes(pid: int) -> int:
    """Resident memory of one process that is its own, and its memory files, mapped or not."""
    own = 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(("RssAnon:", "RssFile:")):
            own += int(line.split()[1]) * 1024
    files: dict[tuple[int, int], int] = {}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if "memfd:voxplain" in str(descriptor.readlink()):
                status = descriptor.stat()
                files[status.st_dev, status.st_ino] = status.st_blocks * 512
        except OSError:
            continue
    return own + sum(files.values())


@contextmanager
def watched(server: RunningServer) -> Iterator[Seen]:
    """Look at memory and health again and again, from a thread."""
    seen, over = Seen(front_bytes(server.pid), front_bytes(server.pid)), threading.Event()

    def watch() -> None:
        with grpc.insecure_channel(server.health_address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while not over.wait(_EVERY_S):
                seen.peak_bytes = max(seen.peak_bytes, front_bytes(server.pid))
                began = time.monotonic()
                try:
                    status = stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status
                    seen.unhealthy += status != health_pb2.HealthCheckResponse.SERVING
                except grpc.RpcError:
                    seen.unhealthy += 1
                seen.waits.append(time.monotonic() - began)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
