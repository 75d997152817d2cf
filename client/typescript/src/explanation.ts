import { setTimeout as sleep } from "node:timers/promises";

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Client as Stub } from "@connectrpc/connect";

import { Conversation } from "./conversation.js";
import { Cancelled, DeadlinePassed, translate, type VoxplainError } from "./errors.js";
import type { Event } from "./events.js";
import type { ExplanationResult } from "./explanation_result.js";
import { ExplainRequestSchema, type ExplainService, type ExplainSpec } from "./gen/voxplain/v1/explain_pb.js";
import type { Request } from "./request.js";
import type { RetryPolicy } from "./retry_policy.js";

/** Limits of one explanation. */
export interface CallOptions {
  /** The whole explanation, with all its calls, fails when it takes longer. */
  readonly timeoutMs?: number | undefined;
  /** Cancels it: the server stops computing within one batch. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Events in the order of the contract, for `for await`. A lost connection resumes by itself, told by a "resuming" event; leaving the
 * loop early cancels.
 */
export class Explanation implements AsyncIterable<Event> {
  readonly #stub: Stub<typeof ExplainService>;
  readonly #request: Request;
  readonly #conversation: Conversation;
  readonly #deadline: number | undefined;
  readonly #cancelling = new AbortController();
  readonly #signal: AbortSignal;
  readonly #events: AsyncGenerator<Event, void>;

  constructor(stub: Stub<typeof ExplainService>, request: Request, policy: RetryPolicy, options: CallOptions) {
    this.#stub = stub;
    this.#request = request;
    this.#conversation = new Conversation(request.spec, policy);
    this.#deadline = options.timeoutMs === undefined ? undefined : performance.now() + options.timeoutMs;
    this.#signal = options.signal ? AbortSignal.any([options.signal, this.#cancelling.signal]) : this.#cancelling.signal;
    this.#events = this.#run();
  }

  [Symbol.asyncIterator](): AsyncGenerator<Event, void> {
    return this.#events;
  }

  /** Stop: the server stops computing within one batch. Iterating then throws Cancelled. */
  cancel(): void {
    this.#cancelling.abort();
  }

  /**
   * Wait for the end and return everything.
   *
   * @throws VoxplainError the call failed for good.
   */
  async result(): Promise<ExplanationResult> {
    while (!(await this.#events.next()).done);
    return this.#conversation.result();
  }

  async *#run(): AsyncGenerator<Event, void> {
    while (!this.#conversation.isFinished()) {
      this.#throwIfCancelled();
      let fault: VoxplainError | undefined;
      try {
        yield* this.#call();
      } catch (error) {
        fault = translate(error, this.#signal.aborted);
      }
      if (this.#conversation.isFinished()) return;
      this.#throwIfCancelled();
      const resuming = this.#conversation.recover(fault);
      yield { kind: "resuming", resuming };
      await sleep(resuming.waitMs, undefined, { signal: this.#signal }).catch(() => undefined);
    }
  }

  async *#call(): AsyncGenerator<Event, void> {
    const timeoutMs = this.#deadline === undefined ? undefined : Math.ceil(this.#deadline - performance.now());
    if (timeoutMs !== undefined && timeoutMs <= 0) {
      throw new DeadlinePassed({ reason: "DEADLINE_EXCEEDED", message: "the time given to the explanation has passed" });
    }
    // Of this call alone: after a fault of ours, and when the caller stops iterating, the server must not go on computing.
    const ending = new AbortController();
    const signal = AbortSignal.any([this.#signal, ending.signal]);
    const messages = this.#messages(this.#conversation.begin());
    try {
      for await (const response of this.#stub.explain(messages, { signal, ...(timeoutMs === undefined ? {} : { timeoutMs }) })) {
        const event = this.#conversation.receive(response);
        if (event) yield event;
      }
    } finally {
      ending.abort();
    }
  }

  async *#messages(spec: ExplainSpec): AsyncGenerator<MessageInitShape<typeof ExplainRequestSchema>, void> {
    yield create(ExplainRequestSchema, { message: { case: "spec", value: spec } });
    for await (const chunk of this.#request.chunks(this.#request.payloads)) {
      yield create(ExplainRequestSchema, { message: { case: "chunk", value: chunk } });
    }
  }

  #throwIfCancelled(): void {
    if (this.#signal.aborted) throw new Cancelled({ reason: "CANCELLED", message: "the explanation was cancelled" });
  }
}
