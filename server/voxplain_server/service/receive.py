"""How a case comes in: the spec first, then chunks, each straight to its place in one nameless file in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc.aio
from voxplain import wire
from voxplain.errors import DeadlinePassed, InvalidSpec, InvalidTensor, LimitExceeded
from voxplain.v1 import explain_pb2, tensor_pb2

from voxplain_server.service.call_observer import CallObserver
from voxplain_server.service.case_files import CaseFiles
from voxplain_server.service.message_bound import check_message
from voxplain_server.service.turns import Turns
from voxplain_server.settings import Limits
from voxplain_server.workers.job import TensorPlace

ALIGNMENT = 64
"""Tensors begin at multiples of this many bytes, a cache line."""

Context = grpc.aio.ServicerContext[bytes, bytes]


async def read_spec(context: Context, limits: Limits) -> explain_pb2.ExplainSpec:
    """Read the first message.

    Raises:
        InvalidSpec: SPEC_MISSING, MALFORMED_MESSAGE or EMPTY_MESSAGE.
        LimitExceeded: MESSAGE_TOO_LARGE.
        DeadlinePassed: FIRST_MESSAGE_LATE.
    """
    try:
        async with asyncio.timeout(limits.first_message_seconds):
            buffer = await context.read()
    except TimeoutError:
        raise DeadlinePassed("FIRST_MESSAGE_LATE", "send the spec right after opening the call", field="spec") from None
    if isinstance(buffer, bytes):
        check_message(buffer)
    message = wire.decode_request(buffer) if isinstance(buffer, bytes) else None
    if not isinstance(message, explain_pb2.ExplainSpec):
        raise InvalidSpec("SPEC_MISSING", "the first message of a call is its spec", field="spec")
    return message


def lay_out(tensors: Sequence[tensor_pb2.Tensor]) -> tuple[TensorPlace, ...]:
    """Give every tensor its place, one after another on aligned offsets."""
    places = []
    offset = 0
    for header in tensors:
        size = wire.tensor_bytes(header)
        places.append(TensorPlace(header=header, offset=offset, size=size))
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    return tuple(places)


class Upload:
    """The bytes of one case on their way into memory.

    Args:
        context: the call.
        places: where each tensor goes.
        limits: chunks and speed.
        observer: told of bytes.
        files: where the memory comes from.
        turns: shared with all other uploads; None: turns of its own.

    Attributes:
        memory: descriptor through which workers read it; `close` gives it back.
    """

    def __init__(
        self,
        context: Context,
        places: Sequence[TensorPlace],
        *,
        limits: Limits,
        observer: CallObserver,
        files: CaseFiles,
        turns: Turns | None = None,
    ) -> None:
        self._context = context
        self._limits = limits
        self._observer = observer
        self._turns = turns or Turns()
        self._starts = {place.header.id: place.offset for place in places}
        self._file = files.open(max(place.offset + place.size for place in places))
        self.memory = self._file.shared
        self._assembler = wire.Assembler({place.header.id: place.size for place in places}, self._write)

    @property
    def bytes_received(self) -> int:
        """Bytes that are in memory."""
        return self._assembler.bytes_received

    @property
    def bytes_total(self) -> int:
        """Bytes declared."""
        return self._assembler.bytes_total

    def close(self) -> None:
        """Give the memory back; workers that still map it keep it until they are done."""
        self._file.close()

    async def receive(self) -> None:
        """Read until every declared byte is there.

        Raises:
            InvalidTensor: chunks break the contract (wire.Assembler.add), or the stream ends early.
            ChecksumMismatch: a chunk was changed on its way.
            InvalidSpec: SPEC_TWICE or MALFORMED_MESSAGE.
            LimitExceeded: TOO_MANY_CHUNKS.
            DeadlinePassed: UPLOAD_TOO_SLOW.
        """
        loop = asyncio.get_running_loop()
        begin = loop.time() + self._limits.upload_grace_seconds
        chunks = 0
        received = 0
        try:
            async with asyncio.timeout_at(begin) as patience:
                while not self._assembler.complete:
                    chunk = read_chunk(await self._context.read())
                    if chunk is None:
                        self._assembler.raise_if_incomplete()
                        return
                    chunks += 1
                    if chunks > self._limits.max_chunks:
                        raise LimitExceeded("TOO_MANY_CHUNKS", "send larger chunks, up to 1 MiB each", field="chunk")
                    await self._turns.take()
                    self._assembler.add(chunk)
                    received += len(chunk.data)
                    self._observer.bytes_moved(received=len(chunk.data))
                    patience.reschedule(begin + received / self._limits.min_upload_bytes_per_second)
        except TimeoutError:
            raise DeadlinePassed("UPLOAD_TOO_SLOW", "the bytes came slower than this server waits for", field="chunk") from None

    async def watch_the_rest(self) -> None:
        """Read on when all bytes are there; returns when the client half-closes.

        Raises:
            InvalidTensor: CHUNK_AFTER_END, or what else the contract does not know.
            InvalidSpec: SPEC_TWICE or MALFORMED_MESSAGE.
        """
        chunk = read_chunk(await self._context.read())
        if chunk is not None:
            self._assembler.add(chunk)
            raise InvalidTensor("CHUNK_AFTER_END", "all declared bytes were there already", field="chunk")

    def _write(self, tensor_id: str, offset: int, data: memoryview) -> None:
        self._file.write(data, self._starts[tensor_id] + offset)


def read_chunk(buffer: object) -> wire.ChunkView | None:
    """The chunk in a message, None at the end of the stream.

    Raises:
        InvalidSpec: SPEC_TWICE, or MALFORMED_MESSAGE.
        InvalidTensor: MALFORMED_MESSAGE.
        LimitExceeded: MESSAGE_TOO_LARGE.
    """
    if not isinstance(buffer, bytes):
        return None
    check_message(buffer)
    message = wire.decode_request(buffer)
    if isinstance(message, explain_pb2.ExplainSpec):
        raise InvalidSpec("SPEC_TWICE", "the spec comes once, as the first message", field="spec")
    return message
