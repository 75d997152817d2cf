"""How a client reaches its server."""

from __future__ import annotations

import os
from collections.abc import Sequence

from voxplain_client.access import is_this_host

DEFAULT_SERVER = "127.0.0.1:50051"

EXPLAIN_PATH = "/voxplain.v1.ExplainService/Explain"
"""Called with identity serializers: protobuf would copy every chunk twice more."""

# Without keepalive a peer that vanished is found after two hours. A name may stand for several servers: calls take turns.
CHANNEL_OPTIONS: Sequence[tuple[str, int | str]] = (
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


def server_address(server: str | None) -> str:
    """HOST:PORT: the argument, else the variable VOXPLAIN_SERVER, else 127.0.0.1:50051."""
    return server or os.environ.get("VOXPLAIN_SERVER") or DEFAULT_SERVER


def plaintext_options(address: str) -> Sequence[tuple[str, int | str]]:
    """Options of a channel without TLS: what is meant for this host goes through no proxy, whatever the variables say."""
    return (*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0)) if is_this_host(address) else CHANNEL_OPTIONS
