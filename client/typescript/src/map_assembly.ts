import { createHash } from "node:crypto";

import { checksum, MAX_CHUNK_BYTES } from "./chunks.js";
import { ChecksumMismatch, InvalidSpec } from "./errors.js";
import type { MapReceived } from "./events.js";
import { type Map as MapHeader, Quantity } from "./gen/voxplain/v1/explain_pb.js";
import { DataType, type TensorChunk } from "./gen/voxplain/v1/tensor_pb.js";

/** Puts the maps of one call together and checks every byte on the way. */
export class MapAssembly {
  #header: MapHeader | undefined;
  #bytes = new Uint8Array(0);
  #received = 0;
  readonly #labels = new Map<string, MapReceived>();

  /**
   * Take the header of the next map.
   *
   * @throws InvalidSpec MAP_INCOMPLETE, the map before lacks bytes; MAP_SIZE, shape and size_bytes do not agree.
   */
  begin(header: MapHeader): void {
    const field = header.methodKey;
    if (this.#header) {
      throw new InvalidSpec({ reason: "MAP_INCOMPLETE", message: "the server began a map before the last was whole", field });
    }
    const size = header.shape.reduce((product, edge) => product * edge, 4);
    const known = header.dataType === DataType.FLOAT32 || header.dataType === DataType.INT32;
    if (!known || size === 0 || header.sizeBytes !== BigInt(size)) {
      throw new InvalidSpec({ reason: "MAP_SIZE", message: "the map's size and shape do not agree", field });
    }
    this.#header = header;
    this.#bytes = new Uint8Array(size);
    this.#received = 0;
  }

  /**
   * Take a chunk of the map announced last; the map, once it is whole.
   *
   * @throws InvalidSpec CHUNK_UNEXPECTED, the chunk breaks the contract; MAP_LABELS, values whose labels are not there.
   * @throws ChecksumMismatch its bytes were changed on their way.
   */
  add(chunk: TensorChunk): MapReceived | undefined {
    const header = this.#header;
    const { length } = chunk.data;
    const fits = length > 0 && length <= MAX_CHUNK_BYTES && this.#received + length <= this.#bytes.length;
    if (chunk.tensorId !== header?.id || chunk.offsetBytes !== BigInt(this.#received) || !fits) {
      const message = "the server sent a chunk that does not belong here";
      throw new InvalidSpec({ reason: "CHUNK_UNEXPECTED", message, field: "chunk" });
    }
    if (chunk.crc32c !== undefined && checksum(chunk.data) !== chunk.crc32c) {
      const message = "the bytes were changed on their way; ask again";
      throw new ChecksumMismatch({ reason: "CHECKSUM_MISMATCH", message, field: header.methodKey });
    }
    this.#bytes.set(chunk.data, this.#received);
    this.#received += length;
    return this.#received === this.#bytes.length ? this.#finish(header) : undefined;
  }

  #finish(header: MapHeader): MapReceived {
    this.#header = undefined;
    const { buffer } = this.#bytes;
    const voxels = header.dataType === DataType.INT32 ? new Int32Array(buffer) : new Float32Array(buffer);
    const sha256 = createHash("sha256").update(this.#bytes).digest("hex");
    if (header.labelsId !== "") return this.#spread(header, voxels, sha256);
    const received = { header, voxels, shape: header.shape, affine: header.affine, sha256 };
    if (header.quantity === Quantity.LABELS) this.#labels.set(header.id, received);
    return received;
  }

  /** One value for each label becomes one for each voxel: voxel = values[label]. */
  #spread(header: MapHeader, values: Float32Array | Int32Array, sha256: string): MapReceived {
    const labels = this.#labels.get(header.labelsId);
    const voxels = new Float32Array(labels?.voxels.length ?? 0);
    for (const [place, label] of labels?.voxels.entries() ?? []) {
      const value = values[label];
      if (value === undefined) return this.#refuseLabels(header);
      voxels[place] = value;
    }
    if (!labels) return this.#refuseLabels(header);
    return { header, voxels, shape: labels.shape, affine: labels.affine, sha256 };
  }

  #refuseLabels(header: MapHeader): never {
    const message = "the server sent values whose labels are not there";
    throw new InvalidSpec({ reason: "MAP_LABELS", message, field: header.methodKey });
  }
}
