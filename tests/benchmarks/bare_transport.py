"""What an upload cannot do without: gRPC's Python on the same messages, and writing the bytes to memory, each alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from types import TracebackType

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt
from voxplain.wire import encode_chunks
from voxplain_client.connection import CHANNEL_OPTIONS
from voxplain_server.service.allocator import keep_buffers
from voxplain_server.service.server import OPTIONS
from voxplain_server.workers.memory import create_memory

_SERVICE, _METHOD = "bare.Transport", "Swallow"
_PIECE_BYTES = 1 << 20


class BareTransport:
    """A gRPC server in a process of its own, with voxplain's options, that reads messages and forgets them."""

    def __enter__(self) -> BareTransport:
        self._process = subprocess.Popen([sys.executable, "-m", __name__], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline())
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._channel.close()
        self._process.terminate()
        self._process.wait()

    def seconds(self, tensor: npt.NDArray[np.float32]) -> float:
        """Seconds until the server has the last of the messages that a client sends for a tensor, checksums made on the way."""
        start = time.perf_counter()
        stream: grpc.StreamUnaryMultiCallable[bytes, bytes] = self._channel.stream_unary(f"/{_SERVICE}/{_METHOD}")
        taken = int(stream(encode_chunks("tensor", tensor.reshape(-1).view(np.uint8).data)))
        elapsed = time.perf_counter() - start
        if taken < tensor.nbytes:
            raise RuntimeError("the bare server lost messages")
        return elapsed


def seconds_to_store(tensor: npt.NDArray[np.float32]) -> float:
    """Seconds to write a tensor into a fresh memory file, in pieces of one chunk; giving it back is not counted."""
    view = tensor.reshape(-1).view(np.uint8).data
    memory = create_memory(len(view))
    try:
        start = time.perf_counter()
        for offset in range(0, len(view), _PIECE_BYTES):
            os.pwrite(memory, view[offset : offset + _PIECE_BYTES], offset)
        return time.perf_counter() - start
    finally:
        os.close(memory)


async def _swallow(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    taken = 0
    while isinstance(message := await context.read(), bytes):
        taken += len(message)
    return str(taken).encode()


async def _serve() -> None:
    keep_buffers()
    server = grpc.aio.server(options=(*OPTIONS, ("grpc.max_receive_message_length", 4 << 20)))
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_unary_rpc_method_handler(_swallow)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
