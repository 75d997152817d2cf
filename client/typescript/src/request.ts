import { randomUUID } from "node:crypto";

import { create, type MessageInitShape } from "@bufbuild/protobuf";

import { type Chunker, inOrder } from "./chunks.js";
import { InvalidSpec } from "./errors.js";
import { type ExplainSpec, ExplainSpecSchema } from "./gen/voxplain/v1/explain_pb.js";
import { type Method, MethodSchema } from "./gen/voxplain/v1/method_pb.js";
import { makePayloads, type Payload, type Volume } from "./volume.js";

/** What is asked: the fields of ExplainSpec, with volumes instead of tensors. Whatever is left out takes the server's default. */
export type ExplainOptions = Omit<MessageInitShape<typeof ExplainSpecSchema>, "tensors" | "methods" | "$typeName" | "$unknown"> & {
  /** As ListModels names it. */
  readonly model: string;
  /** One volume for every modality of the model; labels, baselines, a mask and background cases where methods read them. */
  readonly volumes: readonly Volume[];
  /** In the order they shall run: names such as "grad-cam" for all defaults, or messages. */
  readonly methods: readonly (string | MessageInitShape<typeof MethodSchema>)[];
  /** How the bytes are cut. Default: one tensor after another, in chunks of 1 MiB with checksums. */
  readonly chunks?: Chunker;
};

/** A spec, the tensors that it declares, and how they are sent. */
export interface Request {
  readonly spec: ExplainSpec;
  readonly payloads: readonly Payload[];
  readonly chunks: Chunker;
}

/**
 * Make the messages for what a caller asks.
 *
 * @throws InvalidSpec what the server would refuse and can be seen here without it.
 */
export function buildRequest(options: ExplainOptions): Request {
  const { volumes, methods, chunks = inOrder, ...fields } = options;
  const payloads = makePayloads(volumes);
  const spec = create(ExplainSpecSchema, {
    requestId: randomUUID(),
    ...fields,
    methods: methods.map((method) => (typeof method === "string" ? makeMethod(method) : create(MethodSchema, method))),
    tensors: payloads.map((payload) => payload.header),
  });
  return { spec, payloads, chunks };
}

/**
 * A method with every parameter at its default.
 *
 * @param name with hyphens, for example "integrated-gradients".
 * @throws InvalidSpec METHOD_UNKNOWN.
 */
export function makeMethod(name: string): Method {
  const choice = MethodSchema.oneofs[0]?.fields.find((field) => field.name === name.replaceAll("-", "_"));
  if (choice?.message === undefined) {
    const known = MethodSchema.oneofs[0]?.fields.map((field) => field.name.replaceAll("_", "-")).join(", ") ?? "";
    throw new InvalidSpec({ reason: "METHOD_UNKNOWN", message: `methods are ${known}`, field: "methods" });
  }
  // The name was found among the cases just now, which the type checker cannot follow.
  return create(MethodSchema, { method: { case: choice.localName, value: create(choice.message) } as Method["method"] });
}
