import type { MapReceived } from "./events.js";
import type { Accepted, ExplanationRecord, MethodResult, Prediction } from "./gen/voxplain/v1/explain_pb.js";

/** Method key, then modality. A map shared by several modalities stands under each of them. */
export type MapsByMethod = ReadonlyMap<string, ReadonlyMap<string, MapReceived>>;

/** All that an explanation gave, put together. */
export interface ExplanationResult {
  readonly accepted: Accepted;
  readonly prediction: Prediction;
  /** What reproduces the maps. */
  readonly record: ExplanationRecord;
  /** By method key: outcome, importance, gap, standard error, times. */
  readonly results: ReadonlyMap<string, MethodResult>;
  /** The final attribution maps. */
  readonly maps: MapsByMethod;
  /** Standard error of each voxel, where the method has one. */
  readonly standardErrors: MapsByMethod;
  /** Share of the evaluations that reach a voxel, where a method was stopped early. */
  readonly coverages: MapsByMethod;
}
