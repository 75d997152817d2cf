import { Code, ConnectError } from "@connectrpc/connect";

import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";

const DOMAIN = "voxplain";

/** What every fault knows. */
export interface Fault {
  /** UPPER_SNAKE_CASE code that programs may switch on. */
  readonly reason: string;
  /** Plain words for people. */
  readonly message: string;
  /** Path of the field at fault, for example `tensors[2].shape`; empty where no field is. */
  readonly field?: string;
  /** Milliseconds after which trying again may help. */
  readonly retryAfterMs?: number | undefined;
}

/** A fault of the call. Its class tells the gRPC code, `reason` what happened. */
export class VoxplainError extends Error {
  readonly reason: string;
  readonly field: string;
  readonly retryAfterMs: number | undefined;

  constructor(fault: Fault, options?: ErrorOptions) {
    super(fault.message, options);
    this.name = new.target.name;
    this.reason = fault.reason;
    this.field = fault.field ?? "";
    this.retryAfterMs = fault.retryAfterMs;
  }
}

/** INVALID_ARGUMENT: the spec or a tensor is wrong. */
export class InvalidSpec extends VoxplainError {}
/** DATA_LOSS: bytes were changed on their way. */
export class ChecksumMismatch extends VoxplainError {}
/** NOT_FOUND: no such model or version. */
export class ModelNotFound extends VoxplainError {}
/** FAILED_PRECONDITION: this model cannot do what was asked. */
export class UnsupportedByModel extends VoxplainError {}
/** RESOURCE_EXHAUSTED: a limit of the server, or its queue is full. */
export class LimitExceeded extends VoxplainError {}
/** ABORTED: the checkpoint does not belong to this request. */
export class CheckpointRefused extends VoxplainError {}
/** DEADLINE_EXCEEDED: the time given has passed. */
export class DeadlinePassed extends VoxplainError {}
/** CANCELLED: the caller cancelled. */
export class Cancelled extends VoxplainError {}
/** UNAVAILABLE: shutting down, workers lost, or no connection; trying again helps. */
export class ServerUnavailable extends VoxplainError {}
/** UNAUTHENTICATED: no token, or not one that the server knows. */
export class Unauthenticated extends VoxplainError {}
/** PERMISSION_DENIED: this caller may not do that. */
export class PermissionDenied extends VoxplainError {}
/** INTERNAL: a fault of the server; the message holds an opaque id that its operator finds in the logs. */
export class InternalFault extends VoxplainError {}

const CLASSES = new Map<Code, typeof VoxplainError>([
  [Code.InvalidArgument, InvalidSpec],
  [Code.DataLoss, ChecksumMismatch],
  [Code.NotFound, ModelNotFound],
  [Code.FailedPrecondition, UnsupportedByModel],
  [Code.ResourceExhausted, LimitExceeded],
  [Code.Aborted, CheckpointRefused],
  [Code.DeadlineExceeded, DeadlinePassed],
  [Code.Canceled, Cancelled],
  [Code.Unavailable, ServerUnavailable],
  [Code.Unauthenticated, Unauthenticated],
  [Code.PermissionDenied, PermissionDenied],
  [Code.Internal, InternalFault],
]);

// No server of ours says these without ErrorInfo: they come from the network, in a code that depends on who reset the stream.
const LOST = new Set([Code.Unavailable, Code.Internal, Code.Unknown, Code.Canceled, Code.Aborted]);

/**
 * The typed error for whatever a call threw.
 *
 * @param cancelled whether the caller cancelled the call.
 */
export function translate(error: unknown, cancelled: boolean): VoxplainError {
  if (error instanceof VoxplainError) return error;
  const status = ConnectError.from(error);
  const options = { cause: error };
  if (cancelled) return new Cancelled({ reason: "CANCELLED", message: "the explanation was cancelled" }, options);
  const info = status.findDetails(ErrorInfoSchema).find((detail) => detail.domain === DOMAIN);
  const delay = status.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const retryAfterMs = delay && Number(delay.seconds) * 1000 + delay.nanos / 1e6;
  if (info) {
    const field = status
      .findDetails(BadRequestSchema)
      .flatMap((detail) => detail.fieldViolations)
      .map((violation) => violation.field)
      .join(", ");
    const fault = { reason: info.reason, message: status.rawMessage, field, retryAfterMs };
    return new (CLASSES.get(status.code) ?? VoxplainError)(fault, options);
  }
  if (status.code === Code.Unimplemented) {
    const message = "the server does not offer this call: check its address and version";
    return new InternalFault({ reason: "NOT_A_VOXPLAIN_SERVER", message }, options);
  }
  if (LOST.has(status.code)) {
    const message = "the server cannot be reached: check its address and that it is running";
    return new ServerUnavailable({ reason: "CONNECTION_LOST", message, retryAfterMs }, options);
  }
  const reason = Code[status.code].replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
  return new (CLASSES.get(status.code) ?? VoxplainError)({ reason, message: status.rawMessage, retryAfterMs }, options);
}
