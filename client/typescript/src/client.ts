import type { SecureClientSessionOptions } from "node:http2";

import { type Client as Stub, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

import { checkToken } from "./access.js";
import { translate } from "./errors.js";
import { type CallOptions, Explanation } from "./explanation.js";
import {
  CatalogService,
  type EstimateExplanationResponse,
  type MethodDescription,
  type Model,
  type ModelSummary,
} from "./gen/voxplain/v1/catalog_pb.js";
import { ExplainService } from "./gen/voxplain/v1/explain_pb.js";
import { buildRequest, type ExplainOptions } from "./request.js";
import { DEFAULT_RETRY_POLICY, type RetryPolicy } from "./retry_policy.js";

// Without keepalive a peer that vanished is found after two hours.
const KEEPALIVE = { pingIntervalMs: 30_000, pingTimeoutMs: 10_000 };
// With the 64 KiB of the standard a map would stop at every 64 KiB for an answer.
const WINDOW_BYTES = 4 << 20;

/** How a server is reached. */
export interface ClientOptions {
  /** TLS: certificates to trust, and for mTLS `cert` and `key`; `{}` trusts the system's. Absent: plaintext. */
  readonly tls?: Pick<SecureClientSessionOptions, "ca" | "cert" | "key" | "servername"> | undefined;
  /** Bearer token, sent with every call. It never goes to another host in plaintext. */
  readonly token?: string | undefined;
  /** When broken calls are made again. */
  readonly retry?: Partial<RetryPolicy>;
}

/** Explains cases on one server, over one connection. */
export class Client implements Disposable {
  readonly #sessions: Http2SessionManager;
  readonly #explain: Stub<typeof ExplainService>;
  readonly #catalog: Stub<typeof CatalogService>;
  readonly #policy: RetryPolicy;

  /**
   * @param server HOST:PORT.
   * @throws InvalidSpec ACCESS_INVALID: a token would leave this host in plaintext.
   */
  constructor(server: string, options: ClientOptions = {}) {
    if (options.token !== undefined) checkToken(server, options.tls !== undefined);
    const baseUrl = `${options.tls ? "https" : "http"}://${server}`;
    const settings = { initialWindowSize: WINDOW_BYTES };
    this.#sessions = new Http2SessionManager(baseUrl, KEEPALIVE, { ...options.tls, settings });
    const interceptors = options.token === undefined ? [] : [bearer(options.token)];
    const transport = createGrpcTransport({ baseUrl, sessionManager: this.#sessions, interceptors });
    this.#explain = createClient(ExplainService, transport);
    this.#catalog = createClient(CatalogService, transport);
    this.#policy = { ...DEFAULT_RETRY_POLICY, ...options.retry };
  }

  /** End the connection; running explanations are cancelled. */
  close(): void {
    this.#sessions.abort();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Start an explanation; it runs while it is iterated.
   *
   * @throws InvalidSpec what can be seen to be wrong without the server.
   */
  explain(options: ExplainOptions & CallOptions): Explanation {
    const { timeoutMs, signal, ...asked } = options;
    return new Explanation(this.#explain, buildRequest(asked), this.#policy, { timeoutMs, signal });
  }

  /** What an explanation would cost. Refuses what `explain` would refuse on the spec; sends no voxels. */
  async estimate(options: ExplainOptions): Promise<EstimateExplanationResponse> {
    return translated(this.#catalog.estimateExplanation({ spec: buildRequest(options).spec }));
  }

  /** All models of the server. */
  async models(): Promise<ModelSummary[]> {
    const found: ModelSummary[] = [];
    let pageToken = "";
    do {
      const page = await translated(this.#catalog.listModels({ pageToken }));
      found.push(...page.models);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    return found;
  }

  /** One model: modalities, classes, and for each method whether it works on it. */
  async describe(name: string, version = ""): Promise<Model | undefined> {
    return (await translated(this.#catalog.getModel({ name, version }))).model;
  }

  /** All methods with citation, defaults and assumptions. */
  async methods(): Promise<MethodDescription[]> {
    return (await translated(this.#catalog.listMethods({}))).methods;
  }
}

function bearer(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}

async function translated<Answer>(answer: Promise<Answer>): Promise<Answer> {
  try {
    return await answer;
  } catch (error) {
    throw translate(error, false);
  }
}
