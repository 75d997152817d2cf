"""The gRPC server of the product: what it promises on the wire, whatever is served."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio
from voxplain.v1 import catalog_pb2, catalog_pb2_grpc

from voxplain_server.service.access_guard import AccessGuard
from voxplain_server.service.access_policy import EXPLAIN, INFERENCE_FACTS, METHODS, REFLECTION
from voxplain_server.service.catalog import CatalogAnswers
from voxplain_server.service.explain import SERVICE, Explanations
from voxplain_server.service.inference import INFERENCE_SERVICE, Inferences
from voxplain_server.service.message_bound import MAX_MESSAGE_BYTES

MAX_STREAMS = 1024
"""Calls open at one time, admitted or not; health and metrics are served elsewhere."""

_IDENTITY_ONLY = 1  # bit 0 of grpc.compression_enabled_algorithms_bitset

OPTIONS: tuple[tuple[str, int], ...] = (
    # A second server on the port must fail, not share it.
    ("grpc.so_reuseport", 0),
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


def _labels(name: str) -> tuple[str, str, str]:
    _, service, method = name.split("/")
    kind = "bidi_stream" if name in (EXPLAIN, REFLECTION) else "unary"
    return kind, service, "other" if name in INFERENCE_FACTS else method


GRPC_LABELS = {name: _labels(name) for name in METHODS}
"""Type, service and method, as they are counted: the type as the contract has it, though behind the guard all are streams; the
calls of GRPCInferenceService that answer at once under one name."""


def create_server(
    explanations: Explanations,
    catalog: CatalogAnswers,
    inferences: Inferences,
    *,
    guard: AccessGuard,
    reflection: bool,
    max_inference_bytes: int = MAX_MESSAGE_BYTES,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> grpc.aio.Server:
    """A server that is not bound yet.

    Args:
        explanations, catalog, inferences: what it serves.
        guard: stands before every method.
        reflection: whether it describes itself to generic clients.
        max_inference_bytes: largest message of ModelInfer; gRPC knows one bound for all calls of a port, the others keep theirs
            by themselves.
        interceptors: what every call passes before the guard, the outermost first.
    """
    largest = max(MAX_MESSAGE_BYTES, max_inference_bytes)
    options = (*OPTIONS, ("grpc.max_receive_message_length", largest), ("grpc.max_send_message_length", largest))
    server = grpc.aio.server(interceptors=(*interceptors, guard), options=options, maximum_concurrent_rpcs=MAX_STREAMS)
    server.add_generic_rpc_handlers((explanations.handler(), inferences.handler()))
    catalog_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, server)
    if reflection:
        from grpc_reflection.v1alpha import reflection as describing  # type: ignore[import-untyped]

        catalog_service = catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name
        names = (SERVICE, catalog_service, INFERENCE_SERVICE, describing.SERVICE_NAME)
        describing.enable_server_reflection(names, server)
    return server
