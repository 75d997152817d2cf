import { create } from "@bufbuild/protobuf";
import { crc32c } from "@node-rs/crc32";

import { type TensorChunk, TensorChunkSchema } from "./gen/voxplain/v1/tensor_pb.js";
import type { Payload } from "./volume.js";

/** The most bytes of data in one chunk. */
export const MAX_CHUNK_BYTES = 1 << 20;

/** Makes the chunks of an upload. Those of one tensor come in order; those of different tensors may interleave. */
export type Chunker = (payloads: readonly Payload[]) => Iterable<TensorChunk> | AsyncIterable<TensorChunk>;

/** CRC-32C (Castagnoli) of bytes. */
export function checksum(data: Uint8Array): number {
  return crc32c(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
}

/** The chunks of one tensor, with checksums. Their data are views, not copies. */
export function* chunksOf({ header, bytes }: Payload, chunkBytes: number = MAX_CHUNK_BYTES): Generator<TensorChunk, void> {
  for (let offset = 0; offset < bytes.length; offset += chunkBytes) {
    const data = bytes.subarray(offset, offset + chunkBytes) as Uint8Array<ArrayBuffer>;
    yield create(TensorChunkSchema, { tensorId: header.id, offsetBytes: BigInt(offset), data, crc32c: checksum(data) });
  }
}

/** One tensor after another, in chunks of 1 MiB. */
export function* inOrder(payloads: readonly Payload[]): Generator<TensorChunk, void> {
  for (const payload of payloads) yield* chunksOf(payload);
}
