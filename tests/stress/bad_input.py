"""Rows about what comes in broken."""

from __future__ import annotations

import asyncio
import time

from tests.bundles import TinyBundle
from tests.oracle import settle_server
from tests.serving import RunningServer
from tests.stress.assembling import assemble
from tests.stress.caller import case_of, occlusion
from tests.stress.malformed import send_malformed
from tests.stress.row import Row, Scale, mib
from tests.stress.watching import front_bytes

UPLOADS, RPCS = 200_000, 5_000


def spoil_uploads(scale: Scale) -> list[Row]:
    """Mutated sequences of chunks."""
    count, began = scale.of(UPLOADS), time.monotonic()
    tally = asyncio.run(assemble(count, seed=0))
    return [
        Row(
            what="mutated sequences of chunks",
            count=f"{count:,}",
            goal="no unexpected error; no memory beyond what was declared; accepted means byte-identical",
            figure=f"{len(tally.wrong)} deviations; {tally.accepted:,} accepted, {tally.refused:,} refused "
            f"({time.monotonic() - began:.0f} s)",
            passed=not tally.wrong,
        )
    ]


def send_rpcs(server: RunningServer, bundle: TinyBundle, scale: Scale) -> list[Row]:
    """Malformed calls to every method."""
    count, before = scale.of(RPCS), front_bytes(server.pid)
    outcome = send_malformed(server.address, count, case_of(bundle, [occlusion(6, 5)]), seed=0)
    settle_server(server.metrics_url, server.pid)
    codes = ", ".join(f"{number} {code}" for code, number in outcome.codes.most_common())
    return [
        Row(
            what="malformed RPCs on the wire",
            count=f"{count:,}",
            goal="never UNKNOWN or INTERNAL",
            figure=f"{len(outcome.forbidden)} of them; {codes}; front grew by {mib(front_bytes(server.pid) - before)}",
            passed=not outcome.forbidden,
            remark="these are whole gRPC messages. Of frames below them gRPC's core answers some before this server does, and "
            "INTERNAL for three kinds: a compressed flag without an encoding, an unknown encoding, an unreadable grpc-timeout",
        )
    ]
