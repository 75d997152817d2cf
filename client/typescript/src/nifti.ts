/** NIfTI-1 files in and out: one volume each. An array goes as it is; its affine says where it lies. */
import { readFile, writeFile } from "node:fs/promises";
import { gunzipSync, gzipSync } from "node:zlib";

import { InvalidSpec } from "./errors.js";

const HEADER_BYTES = 348;
const DATA_OFFSET = 352;

/** One volume of a file. */
export interface Nifti {
  /** In C order (the last axis varies fastest), scaled where the file scales them; int16 and uint8 stay as they are. */
  readonly voxels: Float32Array | Int16Array | Uint8Array;
  readonly shape: readonly number[];
  /** Row-major 4x4, RAS+, mm. Absent: the file states none. */
  readonly affine?: readonly number[];
}

/**
 * Read a .nii or .nii.gz.
 *
 * @throws InvalidSpec NOT_NIFTI, NOT_ONE_VOLUME or DTYPE_UNSUPPORTED.
 */
export async function readNifti(path: string): Promise<Nifti> {
  const stored = await readFile(path);
  const bytes = stored[0] === 0x1f && stored[1] === 0x8b ? gunzipSync(stored) : stored;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < DATA_OFFSET || view.getInt32(0, true) !== HEADER_BYTES || !["n+1\0"].includes(bytes.toString("latin1", 344, 348))) {
    throw new InvalidSpec({ reason: "NOT_NIFTI", message: "the file is no little-endian NIfTI-1 in one piece; convert it" });
  }
  const dims = Array.from({ length: view.getInt16(40, true) }, (_, axis) => view.getInt16(42 + 2 * axis, true));
  while (dims.length > 3 && dims.at(-1) === 1) dims.pop();
  if (dims.length < 2 || dims.length > 3) {
    throw new InvalidSpec({ reason: "NOT_ONE_VOLUME", message: "the file holds a series; write one volume to a file of its own" });
  }
  const fortran = readVoxels(view, dims);
  const affine = readAffine(view);
  return { voxels: toC(fortran, dims), shape: dims, ...(affine && { affine }) };
}

/** Write a map as float32 with its affine; gzipped where the path ends with .gz. */
export async function writeNifti(path: string, map: Pick<Nifti, "shape"> & { voxels: ArrayLike<number>; affine?: readonly number[] }): Promise<void> {
  const { shape } = map;
  const affine = map.affine?.length === 16 ? map.affine : undefined;
  const bytes = Buffer.alloc(DATA_OFFSET + 4 * map.voxels.length);
  bytes.writeInt32LE(HEADER_BYTES, 0);
  [shape.length, ...shape, 1, 1, 1, 1, 1, 1].slice(0, 8).forEach((edge, axis) => bytes.writeInt16LE(edge, 40 + 2 * axis));
  bytes.writeInt16LE(16, 70); // float32
  bytes.writeInt16LE(32, 72); // bits of a voxel
  for (let axis = 0; axis < 8; axis += 1) bytes.writeFloatLE(axis > 0 && affine ? spacing(affine, axis - 1) : 1, 76 + 4 * axis);
  bytes.writeFloatLE(DATA_OFFSET, 108);
  bytes.writeFloatLE(1, 112); // slope
  bytes.writeUInt8(2, 123); // mm
  if (affine) {
    bytes.writeInt16LE(2, 254); // sform: aligned to something
    affine.slice(0, 12).forEach((value, place) => bytes.writeFloatLE(value, 280 + 4 * place));
  }
  bytes.write("n+1\0", 344, "latin1");
  const data = toFortran(map.voxels, shape);
  bytes.set(new Uint8Array(data.buffer), DATA_OFFSET);
  await writeFile(path, path.endsWith(".gz") ? gzipSync(bytes) : bytes);
}

function spacing(affine: readonly number[], axis: number): number {
  return axis > 2 ? 1 : Math.hypot(affine[axis] ?? 0, affine[axis + 4] ?? 0, affine[axis + 8] ?? 0);
}

function readVoxels(view: DataView, dims: readonly number[]): Nifti["voxels"] {
  const count = dims.reduce((product, edge) => product * edge, 1);
  const offset = view.getFloat32(108, true);
  const slope = view.getFloat32(112, true);
  const intercept = view.getFloat32(116, true);
  const scaled = Number.isFinite(slope) && slope !== 0 && !(slope === 1 && intercept === 0);
  const code = view.getInt16(70, true);
  const read = READERS.get(code);
  if (!read || view.byteLength < offset + count * read.bytes) {
    throw new InvalidSpec({ reason: "DTYPE_UNSUPPORTED", message: "the file's type cannot be read, or it is cut; convert it" });
  }
  const out = scaled ? new Float32Array(count) : read.make(count);
  for (let place = 0; place < count; place += 1) {
    const value = read.at(view, offset + place * read.bytes);
    out[place] = scaled ? value * slope + intercept : value;
  }
  return out;
}

interface Reader {
  readonly bytes: number;
  readonly at: (view: DataView, offset: number) => number;
  readonly make: (count: number) => Nifti["voxels"];
}

const float = (count: number): Float32Array => new Float32Array(count);
const READERS = new Map<number, Reader>([
  [2, { bytes: 1, at: (view, offset) => view.getUint8(offset), make: (count) => new Uint8Array(count) }],
  [4, { bytes: 2, at: (view, offset) => view.getInt16(offset, true), make: (count) => new Int16Array(count) }],
  [8, { bytes: 4, at: (view, offset) => view.getInt32(offset, true), make: float }],
  [16, { bytes: 4, at: (view, offset) => view.getFloat32(offset, true), make: float }],
  [64, { bytes: 8, at: (view, offset) => view.getFloat64(offset, true), make: float }],
  [512, { bytes: 2, at: (view, offset) => view.getUint16(offset, true), make: float }],
]);

function readAffine(view: DataView): number[] | undefined {
  if (view.getInt16(254, true) > 0) {
    return [...Array.from({ length: 12 }, (_, place) => view.getFloat32(280 + 4 * place, true)), 0, 0, 0, 1];
  }
  if (view.getInt16(252, true) <= 0) return undefined;
  // The quaternion form: rotation times spacing, the third axis flipped where pixdim[0] is -1.
  const at = (offset: number): number => view.getFloat32(offset, true);
  const [b, c, d] = [at(256), at(260), at(264)];
  const a = Math.sqrt(Math.max(0, 1 - (b * b + c * c + d * d)));
  const [dx, dy, dz] = [at(80), at(84), at(88) * (at(76) < 0 ? -1 : 1)];
  return [
    ...[(a * a + b * b - c * c - d * d) * dx, 2 * (b * c - a * d) * dy, 2 * (b * d + a * c) * dz, at(268)],
    ...[2 * (b * c + a * d) * dx, (a * a + c * c - b * b - d * d) * dy, 2 * (c * d - a * b) * dz, at(272)],
    ...[2 * (b * d - a * c) * dx, 2 * (c * d + a * b) * dy, (a * a + d * d - c * c - b * b) * dz, at(276)],
    ...[0, 0, 0, 1],
  ];
}

/** NIfTI's first axis varies fastest, the contract's last one: for each place in C order, its place in the file. */
function* fortranPlaces(shape: readonly number[]): Generator<number> {
  const [nx = 1, ny = 1, nz = 1] = shape;
  for (let x = 0; x < nx; x += 1) {
    for (let y = 0; y < ny; y += 1) {
      for (let z = 0; z < nz; z += 1) yield x + nx * (y + ny * z);
    }
  }
}

function toC<Values extends Nifti["voxels"]>(fortran: Values, shape: readonly number[]): Values {
  const out = fortran.slice() as Values;
  let place = 0;
  for (const from of fortranPlaces(shape)) out[place++] = fortran[from] ?? 0;
  return out;
}

function toFortran(voxels: ArrayLike<number>, shape: readonly number[]): Float32Array {
  const out = new Float32Array(voxels.length);
  let place = 0;
  for (const to of fortranPlaces(shape)) out[to] = voxels[place++] ?? 0;
  return out;
}
