import type { VoxplainError } from "./errors.js";
import type {
  Accepted,
  ExplanationRecord,
  Map as MapHeader,
  MethodResult,
  Prediction,
  Progress,
} from "./gen/voxplain/v1/explain_pb.js";

/** A whole map. */
export interface MapReceived {
  /** Method, quantity, modalities, grid, and whether it is a snapshot. */
  readonly header: MapHeader;
  /** In C order. Values by label are spread over the voxels already. */
  readonly voxels: Float32Array | Int32Array;
  /** Voxels along each axis. */
  readonly shape: readonly number[];
  /** As the client sent it; empty where it sent none. */
  readonly affine: readonly number[];
  /** SHA-256 of the map's bytes, lower-case hexadecimal, as the record holds it. */
  readonly sha256: string;
}

/** The call broke or must wait; it will be made again by itself. */
export interface Resuming {
  readonly fault: VoxplainError;
  /** Counts from 1 since the last advance. */
  readonly attempt: number;
  readonly waitMs: number;
  /** False: the compute starts over. */
  readonly fromCheckpoint: boolean;
}

/** What an explanation tells while it runs. */
export type Event =
  | { readonly kind: "accepted"; readonly accepted: Accepted }
  | { readonly kind: "prediction"; readonly prediction: Prediction }
  | { readonly kind: "progress"; readonly progress: Progress }
  | { readonly kind: "map"; readonly map: MapReceived }
  | { readonly kind: "result"; readonly result: MethodResult }
  | { readonly kind: "record"; readonly record: ExplanationRecord }
  | { readonly kind: "resuming"; readonly resuming: Resuming };
