"""The gRPC server of the product: what it promises on the wire, whatever is served."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio
from voxplain.v1 import catalog_pb2, catalog_pb2_grpc

from voxplain_server.service.catalog import CatalogAnswers
from voxplain_server.service.explain import SERVICE, Explanations
from voxplain_server.service.guard import Guard
from voxplain_server.service.policy import CATALOG, METHODS

MAX_MESSAGE_BYTES = 4 << 20
"""gRPC's own default, so that no client needs an option; a spec with its checkpoint must fit as well."""
MAX_STREAMS = 1024
"""Calls open at one time, admitted or not; health and metrics are served elsewhere."""

_IDENTITY_ONLY = 1  # bit 0 of grpc.compression_enabled_algorithms_bitset

OPTIONS: tuple[tuple[str, int], ...] = (
    # A second server on the port must fail, not share it.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Voxels hardly compress, and a small message could unfold into a large one.
    ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
    # gRPC would widen the window of a fast upload until a third of the case waits in its buffers (measured). Fixed at three
    # chunks (one copied, one on its way, one ahead) it is as fast on a local network; with two a fifth is lost.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 3 << 20),
    # A half-open client is noticed after 40 s instead of two hours.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.max_metadata_size", 16 << 10),
)


GRPC_TYPES = {name: "unary" if name in CATALOG else "bidi_stream" for name in METHODS}
"""What each method is in the contract; behind the guard all are streams."""


def create_server(
    explanations: Explanations,
    catalog: CatalogAnswers,
    *,
    guard: Guard,
    reflection: bool,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> grpc.aio.Server:
    """A server that is not bound yet.

    Args:
        explanations, catalog: what it serves.
        guard: stands before every method.
        reflection: whether it describes itself to generic clients.
        interceptors: what every call passes before the guard, the outermost first.
    """
    server = grpc.aio.server(interceptors=(*interceptors, guard), options=OPTIONS, maximum_concurrent_rpcs=MAX_STREAMS)
    server.add_generic_rpc_handlers((explanations.handler(),))
    catalog_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, server)
    if reflection:
        from grpc_reflection.v1alpha import reflection as describing  # type: ignore[import-untyped]

        names = (SERVICE, catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name, describing.SERVICE_NAME)
        describing.enable_server_reflection(names, server)
    return server
