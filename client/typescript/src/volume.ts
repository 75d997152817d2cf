import { endianness } from "node:os";

import { create } from "@bufbuild/protobuf";

import { InvalidSpec } from "./errors.js";
import { DataType, type Tensor, TensorRole, TensorSchema } from "./gen/voxplain/v1/tensor_pb.js";

/** Voxels as they travel: intensities as float32, int16 or uint8, labels as int32, int16 or uint8, a mask as uint8. */
export type Voxels = Float32Array | Int32Array | Int16Array | Uint8Array;

/** One tensor of a case. */
export interface Volume {
  /** As the model names it; empty for shared labels and masks. */
  readonly modality: string;
  /** In C order: the last axis varies fastest. */
  readonly voxels: Voxels;
  /** Voxels along each axis. */
  readonly shape: readonly number[];
  /** Row-major 4x4 matrix from voxel indices to patient coordinates in mm, RAS+. Absent: not known. */
  readonly affine?: readonly number[] | undefined;
  /** Default: a volume to be explained. */
  readonly role?: TensorRole;
  /** Counts background cases from 0. */
  readonly caseIndex?: number;
}

/** A declared tensor and its bytes. */
export interface Payload {
  readonly header: Tensor;
  readonly bytes: Uint8Array;
}

/**
 * Headers and bytes of a case.
 *
 * @throws InvalidSpec what the server would refuse and can be seen here.
 */
export function makePayloads(volumes: readonly Volume[]): Payload[] {
  if (endianness() !== "LE") {
    throw new InvalidSpec({ reason: "BIG_ENDIAN_HOST", message: "voxels travel little-endian; use a little-endian host" });
  }
  return volumes.map((volume, place) => {
    const field = `volumes[${place}]`;
    const count = volume.shape.reduce((product, edge) => product * edge, 1);
    if (count !== volume.voxels.length) {
      const message = `the shape holds ${count} voxels, the array ${volume.voxels.length}`;
      throw new InvalidSpec({ reason: "SHAPE_MISMATCH", message, field });
    }
    if (volume.affine && volume.affine.length !== 16) {
      throw new InvalidSpec({ reason: "AFFINE_INVALID", message: "an affine has 16 numbers, row by row", field });
    }
    const header = create(TensorSchema, {
      id: `tensor-${place}`,
      role: volume.role ?? TensorRole.VOLUME,
      modality: volume.modality,
      caseIndex: volume.caseIndex ?? 0,
      dataType: dataTypeOf(volume.voxels),
      shape: [...volume.shape],
      affine: [...(volume.affine ?? [])],
    });
    const { buffer, byteOffset, byteLength } = volume.voxels;
    return { header, bytes: new Uint8Array(buffer, byteOffset, byteLength) };
  });
}

function dataTypeOf(voxels: Voxels): DataType {
  if (voxels instanceof Float32Array) return DataType.FLOAT32;
  if (voxels instanceof Int32Array) return DataType.INT32;
  return voxels instanceof Int16Array ? DataType.INT16 : DataType.UINT8;
}
