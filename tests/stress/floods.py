"""Floods of HTTP/2 frames: memory stays bounded, and others are served meanwhile."""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Callable

from tests.serving import RunningServer
from tests.stress.raw_client import raw_client
from tests.stress.row import Row, Scale, mib, milliseconds, percentile
from tests.stress.watching import watched

MIB = 1 << 20
STREAM_BYTES, BESIDES_BYTES = 4 * MIB, 64 * MIB
HEALTH_SECONDS = 0.25
DRIPPING_STREAMS = 64
BOMB_BYTES = 1 << 30
RESETS, PINGS = 10_000, 20_000

Act = Callable[[RunningServer, int], str]


def flood(server: RunningServer, scale: Scale) -> list[Row]:
    """Every flood in turn."""
    return [
        _row(server, "declared 4 MiB, dripped", DRIPPING_STREAMS, DRIPPING_STREAMS, _drip),
        _row(server, "declared 1 GiB, dripped", DRIPPING_STREAMS, DRIPPING_STREAMS, _declare_too_much),
        _row(server, "compression bombs of 1 GiB", scale.of(20), 20, _bomb),
        _row(server, "streams opened and reset", scale.of(RESETS), 100, _reset),
        _row(server, "pings", scale.of(PINGS), 1, _ping),
    ]


def _row(server: RunningServer, what: str, count: int, streams: int, act: Act) -> Row:
    with watched(server) as seen:
        outcome = act(server, count)
    grown, bound = seen.peak_bytes - seen.rest_bytes, streams * STREAM_BYTES + BESIDES_BYTES
    wait = percentile(seen.waits, 0.99)
    return Row(
        what=what,
        count=str(count),
        goal=f"front grows by <= {mib(bound)}; health p99 <= {milliseconds(HEALTH_SECONDS)}",
        figure=f"{mib(grown)}; {milliseconds(wait)} of {len(seen.waits)}; {outcome}",
        passed=grown <= bound and wait <= HEALTH_SECONDS and not seen.unhealthy,
    )


def _drip(server: RunningServer, streams: int) -> str:
    with raw_client(server.address) as client:
        opened = [client.open() for _ in range(streams)]
        for stream in opened:
            client.send(stream, b"\x00" + (STREAM_BYTES - 16).to_bytes(4, "big"))
        until = time.monotonic() + 5.0
        while time.monotonic() < until and not client.closed:
            for stream in opened:
                if stream not in client.ended:
                    client.send(stream, b"drip" * 64)
            client.read(0.1)
        client.wait_for(opened, 12.0)
        return f"ended {_told(client.ended)}"


def _declare_too_much(server: RunningServer, streams: int) -> str:
    with raw_client(server.address) as client:
        opened = [client.open() for _ in range(streams)]
        for stream in opened:
            client.send(stream, b"\x00" + (1 << 30).to_bytes(4, "big") + b"drip")
        client.wait_for(opened, 10.0)
        return f"ended {_told(client.ended)}"


def _bomb(server: RunningServer, count: int) -> str:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(squeezer.compress(bytes(16 * MIB)) for _ in range(BOMB_BYTES // (16 * MIB))) + squeezer.flush()
    body = b"\x01" + len(packed).to_bytes(4, "big") + packed
    ended: dict[int, str] = {}
    for number in range(count):
        with raw_client(server.address) as client:
            stream = client.open(grpc_encoding="gzip")
            client.send(stream, body, end=True)
            client.wait_for([stream], 15.0)
            ended[number] = client.ended.get(stream, "not ended")
    return f"ended {_told(ended)}"


def _reset(server: RunningServer, count: int) -> str:
    done = connections = 0
    while done < count and connections < count:
        connections += 1
        with raw_client(server.address) as client:
            while done < count and client.flush():
                for _ in range(50):
                    client.reset(client.open())
                    done += 1
                client.read(0.001)
    return f"{connections} connections"


def _ping(server: RunningServer, count: int) -> str:
    done = connections = 0
    while done < count and connections < 1000:
        connections += 1
        with raw_client(server.address) as client:
            client.read(0.05)
            while done < count and not client.closed:
                for _ in range(20):
                    client.ping(done)
                    done += 1
                client.flush()
                client.read(0.002)
    return f"the server hung up {connections - 1} times"


def _told(ended: dict[int, str]) -> str:
    return ", ".join(f"{count} x {how}" for how, count in sorted(Counter(ended.values()).items())) or "none"
