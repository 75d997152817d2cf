"""Clients that keep a server busy in all the ways that its dashboard shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import grpc
from voxplain import wire
from voxplain.v1 import catalog_pb2, catalog_pb2_grpc, explain_pb2, method_pb2

from tests.bundles import TinyBundle

EXPLAIN = "/voxplain.v1.ExplainService/Explain"
_CLIENTS = 3


class Load:
    """Explains, cancels, and asks for what there is not, until it is left.

    Args:
        address: the server's.
        bundle: the model.
    """

    def __init__(self, address: str, bundle: TinyBundle) -> None:
        self._address, self._bundle = address, bundle
        self._over = threading.Event()
        work = [self._explain] * _CLIENTS + [self._cancel, self._ask_for_nothing]
        self._threads = [threading.Thread(target=self._repeat, args=(each,)) for each in work]
        self.completed = 0

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, work: Callable[[grpc.Channel], None]) -> None:
        with grpc.insecure_channel(self._address) as channel:
            while not self._over.is_set():
                try:
                    work(channel)
                except grpc.RpcError:
                    # Refused for want of room, cancelled, not found, or its worker was killed: all belong to the load.
                    time.sleep(0.1)

    def _explain(self, channel: grpc.Channel) -> None:
        methods = [
            method_pb2.Method(gradient=method_pb2.Gradient()),
            method_pb2.Method(input_x_gradient=method_pb2.InputXGradient()),
            method_pb2.Method(occlusion=method_pb2.Occlusion(window=[6], stride=[5])),
        ]
        for _ in self._call(channel, methods):
            pass
        self.completed += 1

    def _cancel(self, channel: grpc.Channel) -> None:
        call = self._call(channel, [method_pb2.Method(occlusion=method_pb2.Occlusion(window=[2], stride=[1]))])
        for message in call:
            if explain_pb2.ExplainResponse.FromString(message).WhichOneof("event") == "prediction":
                call.cancel()
        time.sleep(0.5)

    def _ask_for_nothing(self, channel: grpc.Channel) -> None:
        time.sleep(0.2)
        catalog_pb2_grpc.CatalogServiceStub(channel).GetModel(catalog_pb2.GetModelRequest(name="jane-doe"))

    def _call(self, channel: grpc.Channel, methods: list[method_pb2.Method]) -> Any:
        spec = explain_pb2.ExplainSpec(model=self._bundle.name, tensors=self._bundle.headers(), methods=methods)
        spec.snapshot_interval.FromMilliseconds(100)

        def requests() -> Iterator[bytes]:
            yield explain_pb2.ExplainRequest(spec=spec).SerializeToString()
            for name, voxels in self._bundle.volumes().items():
                yield from wire.encode_chunks(name, wire.array_bytes(voxels))

        method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(EXPLAIN)
        return method(requests(), timeout=60)
