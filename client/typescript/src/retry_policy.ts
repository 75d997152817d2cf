import { LimitExceeded, ServerUnavailable, type VoxplainError } from "./errors.js";

/** When a broken call is made again. Explaining changes nothing on the server, so doing it again is always safe. */
export interface RetryPolicy {
  /** Calls made again in a row without any advance between them; 0: never. */
  readonly attempts: number;
  /** The same before the server has answered anything at all: its address may be wrong. */
  readonly firstAttempts: number;
  /** Wait before the first of them, doubled each time and shortened at random by up to a half. */
  readonly firstWaitMs: number;
  /** The longest such wait. A delay that the server names is kept in full up to `patienceMs`. */
  readonly longestWaitMs: number;
  /** A server that asks for a longer wait is given up. */
  readonly patienceMs: number;
}

/** What a client does unless it is told otherwise. */
export const DEFAULT_RETRY_POLICY: RetryPolicy = {
  attempts: 6,
  firstAttempts: 1,
  firstWaitMs: 500,
  longestWaitMs: 15_000,
  patienceMs: 120_000,
};

/**
 * Milliseconds to wait before the call is made again; undefined: it shall not be.
 *
 * @param attempt counts from 1 since the last advance.
 * @param answered whether the server has answered anything in this explanation.
 */
export function waitMs(policy: RetryPolicy, fault: VoxplainError, attempt: number, answered: boolean): number | undefined {
  const asked = fault.retryAfterMs;
  const waits = fault instanceof ServerUnavailable || (fault instanceof LimitExceeded && asked !== undefined);
  if (!waits) return undefined;
  const unseen = fault.reason === "CONNECTION_LOST" && !answered;
  const allowed = unseen ? Math.min(policy.attempts, policy.firstAttempts) : policy.attempts;
  if (attempt > allowed || (asked ?? 0) > policy.patienceMs) return undefined;
  // Many clients that lost one server must not all come back at one moment.
  const backoff = Math.min(policy.firstWaitMs * 2 ** (attempt - 1), policy.longestWaitMs) * (0.5 + Math.random() / 2);
  return Math.max(backoff, asked ?? 0);
}
