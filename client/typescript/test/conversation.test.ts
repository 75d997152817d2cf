import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { create, type MessageInitShape } from "@bufbuild/protobuf";

import { checksum } from "../src/chunks.js";
import { Conversation } from "../src/conversation.js";
import { CheckpointRefused, ChecksumMismatch, LimitExceeded, ServerUnavailable } from "../src/errors.js";
import type { Event } from "../src/events.js";
import { ExplainResponseSchema, ExplainSpecSchema, Outcome, Quantity } from "../src/gen/voxplain/v1/explain_pb.js";
import { DataType } from "../src/gen/voxplain/v1/tensor_pb.js";
import { DEFAULT_RETRY_POLICY } from "../src/retry_policy.js";

type Answer = MessageInitShape<typeof ExplainResponseSchema>["event"];

const VALUES = new Float32Array([1, -2, 3, 4]);
const BYTES = new Uint8Array(VALUES.buffer);
const SHA256 = createHash("sha256").update(BYTES).digest("hex");
const LOST = new ServerUnavailable({ reason: "CONNECTION_LOST", message: "cut" });

function conversation(): Conversation {
  return new Conversation(create(ExplainSpecSchema, { model: "net" }), DEFAULT_RETRY_POLICY);
}

function tell(to: Conversation, event: NonNullable<Answer>): Event | undefined {
  return to.receive(create(ExplainResponseSchema, { event }));
}

function accept(to: Conversation, modelDigest = "d"): Event | undefined {
  return tell(to, { case: "accepted", value: { model: "net", version: "3", modelDigest } });
}

function sendMap(to: Conversation, crc32c = checksum(BYTES)): Event | undefined {
  const header = { id: "m", methodKey: "gradient", quantity: Quantity.ATTRIBUTION, modalities: ["t1"] };
  const size = { dataType: DataType.FLOAT32, shape: [2, 2], sizeBytes: 16n };
  assert.equal(tell(to, { case: "map", value: { ...header, ...size } }), undefined);
  return tell(to, { case: "chunk", value: { tensorId: "m", offsetBytes: 0n, data: BYTES, crc32c } });
}

function endMethod(to: Conversation, outcome = Outcome.COMPLETED): Event | undefined {
  return tell(to, { case: "methodResult", value: { methodKey: "gradient", outcome } });
}

function sendRecord(to: Conversation, sha256 = SHA256): Event | undefined {
  const map = { methodKey: "gradient", quantity: Quantity.ATTRIBUTION, modalities: ["t1"], sha256 };
  return tell(to, { case: "summary", value: { record: { maps: [map] } } });
}

test("a map is whole when its last byte is there, with the digest of its bytes", () => {
  const talk = conversation();
  accept(talk);
  const event = sendMap(talk);
  assert.equal(event?.kind, "map");
  assert.deepEqual(event.map.voxels, VALUES);
  assert.equal(event.map.sha256, SHA256);
});

test("a chunk that was changed on its way is refused", () => {
  assert.throws(() => sendMap(conversation(), checksum(BYTES) ^ 1), ChecksumMismatch);
});

test("a record with other digests than the maps that came is refused", () => {
  const talk = conversation();
  accept(talk);
  sendMap(talk);
  assert.throws(() => sendRecord(talk, "0"), { name: "ChecksumMismatch", reason: "MAP_DIGEST_MISMATCH" });
});

test("a resumed call goes on from the last checkpoint and tells nothing twice", () => {
  const talk = conversation();
  talk.begin();
  assert.equal(accept(talk)?.kind, "accepted");
  assert.equal(sendMap(talk)?.kind, "map");
  assert.equal(endMethod(talk)?.kind, "result");
  tell(talk, { case: "progress", value: { checkpoint: new Uint8Array([7]) } });
  assert.equal(talk.recover(LOST).fromCheckpoint, true);
  const spec = talk.begin();
  assert.deepEqual([spec.checkpoint, spec.version], [new Uint8Array([7]), "3"]);
  assert.deepEqual([accept(talk), sendMap(talk), endMethod(talk)], [undefined, undefined, undefined]);
  assert.equal(sendRecord(talk)?.kind, "record");
  assert.equal(talk.isFinished(), true);
});

test("another model under the same version ends a resumed call", () => {
  const talk = conversation();
  accept(talk);
  talk.begin();
  assert.throws(() => accept(talk, "other"), { reason: "MODEL_CHANGED" });
});

test("a drained method is asked for again, and its record is not the last", () => {
  const talk = conversation();
  accept(talk);
  sendMap(talk);
  endMethod(talk, Outcome.DRAINED);
  assert.equal(sendRecord(talk), undefined);
  assert.equal(talk.recover(undefined).fault.reason, "CONNECTION_LOST");
  talk.begin();
  assert.equal(sendMap(talk)?.kind, "map", "it belongs to another result");
});

test("a refused checkpoint is dropped once", () => {
  const talk = conversation();
  accept(talk);
  tell(talk, { case: "progress", value: { checkpoint: new Uint8Array([7]) } });
  const refused = new CheckpointRefused({ reason: "CHECKPOINT_FOREIGN", message: "of another server" });
  assert.equal(talk.recover(refused).fromCheckpoint, false);
  assert.equal(talk.begin().checkpoint.length, 0);
  assert.throws(() => talk.recover(refused), CheckpointRefused);
});

test("a delay that the server names is kept, one beyond patience ends the explanation", () => {
  const talk = conversation();
  const full = (retryAfterMs?: number): LimitExceeded => new LimitExceeded({ reason: "QUEUE_FULL", message: "full", retryAfterMs });
  assert.equal(talk.recover(full(5000)).waitMs, 5000);
  assert.throws(() => talk.recover(full(1_000_000)), LimitExceeded);
  assert.throws(() => talk.recover(full()), LimitExceeded);
});

test("a server that never answered is tried once more only", () => {
  const talk = conversation();
  talk.recover(LOST);
  assert.throws(() => talk.recover(LOST), ServerUnavailable);
});

test("advance between two faults starts the count anew", () => {
  const talk = conversation();
  accept(talk);
  for (let done = 1n; done <= 20n; done += 1n) {
    tell(talk, { case: "progress", value: { evaluationsDone: done } });
    assert.equal(talk.recover(LOST).attempt, 1);
  }
  for (let attempt = 2; attempt <= DEFAULT_RETRY_POLICY.attempts; attempt += 1) talk.recover(LOST);
  assert.throws(() => talk.recover(LOST), ServerUnavailable);
});
