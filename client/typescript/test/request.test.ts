import assert from "node:assert/strict";
import { test } from "node:test";

import { Code, ConnectError } from "@connectrpc/connect";

import { checksum, inOrder, MAX_CHUNK_BYTES } from "../src/chunks.js";
import { Client } from "../src/client.js";
import { type InvalidSpec, translate } from "../src/errors.js";
import { ErrorInfoSchema, BadRequestSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { buildRequest, makeMethod } from "../src/request.js";
import { makePayloads } from "../src/volume.js";

const volume = { modality: "t1", voxels: new Int16Array(6), shape: [1, 2, 3] };

test("a token goes to another host with TLS only", () => {
  for (const server of ["explain.example:50051", "10.0.0.7:50051", "localhost.example:1", "127.0.0.1.example:1", "[2001:db8::1]:1"]) {
    assert.throws(() => new Client(server, { token: "secret" }), (error: InvalidSpec) => error.reason === "ACCESS_INVALID");
    new Client(server, { token: "secret", tls: {} }).close();
    new Client(server).close();
  }
  for (const server of ["localhost:50051", "127.0.0.1:50051", "127.8.9.1:1", "[::1]:50051"]) {
    new Client(server, { token: "secret" }).close();
  }
});

test("CRC-32C has the value of RFC 3720", () => {
  assert.equal(checksum(new Uint8Array(32)), 0x8a9136aa);
});

test("a tensor is cut into chunks of 1 MiB that are views of it", () => {
  const voxels = new Float32Array((MAX_CHUNK_BYTES / 4) * 2 + 1);
  const chunks = [...inOrder(makePayloads([{ modality: "t1", voxels, shape: [voxels.length, 1] }]))];
  assert.deepEqual(
    chunks.map((chunk) => [chunk.offsetBytes, chunk.data.length]),
    [
      [0n, MAX_CHUNK_BYTES],
      [BigInt(MAX_CHUNK_BYTES), MAX_CHUNK_BYTES],
      [BigInt(2 * MAX_CHUNK_BYTES), 4],
    ],
  );
  assert.equal(chunks[0]?.data.buffer, voxels.buffer);
});

test("a method's name becomes its message with nothing set", () => {
  const { method } = makeMethod("integrated-gradients");
  assert.equal(method.case, "integratedGradients");
  assert.equal(method.value.steps, undefined);
  assert.throws(() => makeMethod("magic"), { reason: "METHOD_UNKNOWN" });
});

test("a request declares what its volumes are and keeps the fields of the spec", () => {
  const { spec } = buildRequest({ model: "net", volumes: [volume], methods: ["gradient"], seed: 0n });
  assert.deepEqual(spec.tensors[0]?.shape, [1, 2, 3]);
  assert.equal(spec.seed, 0n);
});

test("a shape that does not fit its voxels is refused before anything is sent", () => {
  assert.throws(() => makePayloads([{ ...volume, shape: [2, 2, 2] }]), { reason: "SHAPE_MISMATCH", field: "volumes[0]" });
});

test("a typed status keeps reason, field and delay", () => {
  const details = [
    { desc: ErrorInfoSchema, value: { domain: "voxplain", reason: "QUEUE_FULL" } },
    { desc: BadRequestSchema, value: { fieldViolations: [{ field: "a" }, { field: "b" }] } },
    { desc: RetryInfoSchema, value: { retryDelay: { seconds: 5n, nanos: 5e8 } } },
  ];
  const fault = translate(new ConnectError("full", Code.ResourceExhausted, undefined, details), false);
  assert.deepEqual([fault.name, fault.reason, fault.field, fault.retryAfterMs], ["LimitExceeded", "QUEUE_FULL", "a, b", 5500]);
});

test("a status without our details comes from the network", () => {
  assert.equal(translate(new ConnectError("reset", Code.Internal), false).reason, "CONNECTION_LOST");
  assert.equal(translate(new ConnectError("late", Code.DeadlineExceeded), false).name, "DeadlinePassed");
  assert.equal(translate(new ConnectError("late", Code.DeadlineExceeded), false).reason, "DEADLINE_EXCEEDED");
  assert.equal(translate(new ConnectError("reset", Code.Canceled), true).name, "Cancelled");
});

test("a server that is not there ends as CONNECTION_LOST after one more try", async () => {
  using client = new Client("127.0.0.1:1", { retry: { firstWaitMs: 1 } });
  const kinds: string[] = [];
  await assert.rejects(
    async () => {
      for await (const event of client.explain({ model: "net", volumes: [volume], methods: ["gradient"] })) kinds.push(event.kind);
    },
    { name: "ServerUnavailable", reason: "CONNECTION_LOST" },
  );
  assert.deepEqual(kinds, ["resuming"]);
});
