import { CheckpointRefused, ChecksumMismatch, ServerUnavailable, UnsupportedByModel, type VoxplainError } from "./errors.js";
import type { Event, MapReceived, Resuming } from "./events.js";
import type { ExplanationResult, MapsByMethod } from "./explanation_result.js";
import {
  type Accepted,
  type ExplainResponse,
  type ExplainSpec,
  type ExplanationRecord,
  type MethodResult,
  Outcome,
  type Prediction,
  type Progress,
  Quantity,
} from "./gen/voxplain/v1/explain_pb.js";
import { MapAssembly } from "./map_assembly.js";
import { type RetryPolicy, waitMs } from "./retry_policy.js";

interface Advance {
  readonly ended: number;
  readonly done: bigint;
}

/** One explanation over as many calls as it takes. Knows no network. */
export class Conversation {
  readonly #spec: ExplainSpec;
  readonly #policy: RetryPolicy;
  #checkpoint: ExplainSpec["checkpoint"];
  #accepted: Accepted | undefined;
  #prediction: Prediction | undefined;
  #record: ExplanationRecord | undefined;
  readonly #results = new Map<string, MethodResult>();
  readonly #maps = new Map<string, MapReceived>();
  readonly #delivered = new Map<string, string>();
  #inCall = new Map<string, string>();
  #assembly = new MapAssembly();
  #attempt = 0;
  #advance: Advance = { ended: 0, done: 0n };
  #advanceAtFault: Advance = this.#advance;
  #startedOver = false;

  constructor(spec: ExplainSpec, policy: RetryPolicy) {
    this.#spec = spec;
    this.#policy = policy;
    this.#checkpoint = spec.checkpoint;
  }

  /** Whether the record is there. */
  isFinished(): boolean {
    return this.#record !== undefined;
  }

  /** Begin a call: the spec to send in it. A resumed call goes on from the last checkpoint, on the same version. */
  begin(): ExplainSpec {
    this.#assembly = new MapAssembly();
    this.#inCall = new Map();
    return { ...this.#spec, checkpoint: this.#checkpoint, version: this.#accepted?.version ?? this.#spec.version };
  }

  /**
   * Take one message of the server; what is new in it.
   *
   * @throws VoxplainError the server broke the contract, or bytes were changed on their way.
   */
  receive({ event }: ExplainResponse): Event | undefined {
    switch (event.case) {
      case "accepted":
        return this.#takeAccepted(event.value);
      case "prediction":
        return this.#takePrediction(event.value);
      case "progress":
        return this.#takeProgress(event.value);
      case "map":
        this.#assembly.begin(event.value);
        return undefined;
      case "chunk": {
        const received = this.#assembly.add(event.value);
        return received && this.#takeMap(received);
      }
      case "methodResult":
        return this.#takeResult(event.value);
      case "summary":
        return event.value.record && this.#takeRecord(event.value.record);
      case undefined:
        return undefined;
    }
  }

  /**
   * Decide what happens after a call ended before the record came.
   *
   * @param fault undefined: the server closed the stream without a fault.
   * @throws VoxplainError the fault, when trying again would not help or was tried often enough.
   */
  recover(fault: VoxplainError | undefined): Resuming {
    const cause = fault ?? new ServerUnavailable({ reason: "CONNECTION_LOST", message: "the stream ended before the record" });
    if (cause instanceof CheckpointRefused && this.#checkpoint.length > 0 && !this.#startedOver) {
      this.#startedOver = true;
      this.#checkpoint = new Uint8Array(0);
      return { fault: cause, attempt: 1, waitMs: 0, fromCheckpoint: false };
    }
    if (isFurther(this.#advance, this.#advanceAtFault)) this.#attempt = 0;
    this.#advanceAtFault = this.#advance;
    this.#attempt += 1;
    const wait = waitMs(this.#policy, cause, this.#attempt, this.#accepted !== undefined);
    if (wait === undefined) throw cause;
    return { fault: cause, attempt: this.#attempt, waitMs: wait, fromCheckpoint: this.#checkpoint.length > 0 };
  }

  /**
   * Everything, once finished.
   *
   * @throws ServerUnavailable the record is not there yet.
   */
  result(): ExplanationResult {
    if (!this.#record || !this.#accepted || !this.#prediction) {
      throw new ServerUnavailable({ reason: "NOT_FINISHED", message: "the explanation has not ended" });
    }
    return {
      accepted: this.#accepted,
      // Its plans are those that were computed; the one that came early had to estimate some.
      prediction: this.#record.prediction ?? this.#prediction,
      record: this.#record,
      results: new Map(this.#record.results.map((result) => [result.methodKey, result])),
      maps: this.#byModality(Quantity.ATTRIBUTION),
      standardErrors: this.#byModality(Quantity.STANDARD_ERROR),
      coverages: this.#byModality(Quantity.COVERAGE),
    };
  }

  #byModality(quantity: Quantity): MapsByMethod {
    const found = new Map<string, Map<string, MapReceived>>();
    for (const received of this.#maps.values()) {
      if (received.header.quantity !== quantity) continue;
      const { methodKey, modalities } = received.header;
      const maps = found.get(methodKey) ?? new Map<string, MapReceived>();
      for (const modality of modalities) maps.set(modality, received);
      found.set(methodKey, maps);
    }
    return found;
  }

  #takeAccepted(accepted: Accepted): Event | undefined {
    const before = this.#accepted;
    if (before && before.modelDigest !== accepted.modelDigest) {
      const message = "the server now holds another model of this version: ask anew";
      throw new UnsupportedByModel({ reason: "MODEL_CHANGED", message, field: "model" });
    }
    this.#accepted = accepted;
    return before ? undefined : { kind: "accepted", accepted };
  }

  #takePrediction(prediction: Prediction): Event | undefined {
    const before = this.#prediction;
    this.#prediction = prediction;
    return before ? undefined : { kind: "prediction", prediction };
  }

  #takeProgress(progress: Progress): Event {
    if (progress.checkpoint.length > 0) this.#checkpoint = progress.checkpoint;
    this.#note({ ended: this.#ended(), done: progress.evaluationsDone });
    return { kind: "progress", progress };
  }

  #takeMap(map: MapReceived): Event | undefined {
    if (map.header.quantity === Quantity.LABELS) return undefined;
    if (map.header.snapshot) return { kind: "map", map };
    const key = mapKey(map.header);
    this.#inCall.set(key, map.sha256);
    this.#maps.set(key, map);
    // A resumed call sends the maps of ended methods again; only bytes that are new are news.
    if (this.#delivered.get(key) === map.sha256) return undefined;
    this.#delivered.set(key, map.sha256);
    return { kind: "map", map };
  }

  #takeResult(result: MethodResult): Event | undefined {
    const before = this.#results.get(result.methodKey);
    this.#results.set(result.methodKey, result);
    this.#note({ ended: this.#ended(), done: 0n });
    if (result.outcome === Outcome.DRAINED) {
      // What comes for it next is news also where its bytes are the same: it belongs to another result.
      for (const key of this.#delivered.keys()) {
        if (key.startsWith(`${result.methodKey}\n`)) this.#delivered.delete(key);
      }
    }
    return before?.outcome === result.outcome ? undefined : { kind: "result", result };
  }

  #takeRecord(record: ExplanationRecord): Event | undefined {
    this.#checkDigests(record);
    const drained = [...this.#results.values()].some((result) => result.outcome === Outcome.DRAINED);
    // The server is going away; another goes on from the checkpoint: this record is not the last.
    if (drained && this.#policy.attempts > 0) return undefined;
    for (const key of this.#maps.keys()) {
      if (!this.#inCall.has(key)) this.#maps.delete(key);
    }
    this.#record = record;
    return { kind: "record", record };
  }

  #checkDigests(record: ExplanationRecord): void {
    const recorded = record.maps.filter((map) => map.quantity !== Quantity.LABELS);
    const right = recorded.every((map) => this.#inCall.get(mapKey(map)) === map.sha256);
    if (!right || recorded.length !== this.#inCall.size) {
      const message = "the maps that came are not those of the record: ask again";
      throw new ChecksumMismatch({ reason: "MAP_DIGEST_MISMATCH", message, field: "record.maps" });
    }
  }

  #ended(): number {
    return [...this.#results.values()].filter((result) => result.outcome !== Outcome.DRAINED).length;
  }

  #note(advance: Advance): void {
    if (isFurther(advance, this.#advance)) this.#advance = advance;
  }
}

function isFurther(one: Advance, other: Advance): boolean {
  return one.ended > other.ended || (one.ended === other.ended && one.done > other.done);
}

function mapKey(map: { methodKey: string; quantity: Quantity; modalities: string[] }): string {
  return [map.methodKey, map.quantity, ...map.modalities].join("\n");
}
