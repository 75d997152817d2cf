/** The driver around the TypeScript client: one request a line in, events out. See tests/conformance/README.md. */
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { fromJson, type JsonValue } from "@bufbuild/protobuf";

import {
  type Chunker,
  chunksOf,
  Client,
  DataType,
  type Event,
  ExplainSpecSchema,
  inOrder,
  Outcome,
  Progress_Stage,
  Quantity,
  type TensorChunk,
  TensorRole,
  type Volume,
  VoxplainError,
  type Voxels,
} from "../src/index.js";

interface Asked {
  server: string;
  spec: JsonValue;
  volumes: { role: string; modality: string; data_type: string; shape: number[]; affine: number[]; file: string }[];
  upload?: string;
  timeout_s?: number;
  cancel_after?: string;
  ca_file?: string;
  certificate_file?: string;
  key_file?: string;
  token?: string;
}

const SMALL_CHUNK = 1000;

const UPLOADS: Record<string, Chunker> = {
  "in-order": inOrder,
  interleaved: function* (payloads): Generator<TensorChunk> {
    const rows = payloads.map((payload) => chunksOf(payload, SMALL_CHUNK));
    for (let any = true; any; ) {
      any = false;
      for (const row of rows) {
        const { done, value } = row.next();
        if (done) continue;
        any = true;
        yield value;
      }
    }
  },
  "close-early": (payloads) => payloads.slice(0, 1).flatMap((payload) => [...chunksOf(payload)]),
  "wrong-checksum": function* (payloads): Generator<TensorChunk> {
    for (const chunk of inOrder(payloads)) yield { ...chunk, crc32c: ((chunk.crc32c ?? 0) ^ 1) >>> 0 };
  },
};

async function answer(asked: Asked): Promise<void> {
  const read = (file: string | undefined): Buffer | undefined => (file === undefined ? undefined : readFileSync(file));
  const ca = read(asked.ca_file);
  const cert = read(asked.certificate_file);
  const key = read(asked.key_file);
  const tls = ca && { ca, ...(cert && { cert }), ...(key && { key }) };
  const client = new Client(asked.server, { tls, token: asked.token });
  const volumes = asked.volumes.map(readVolume);
  const start = performance.now();
  const tell = (event: string, fields: object): void => {
    process.stdout.write(`${JSON.stringify({ event, t: (performance.now() - start) / 1000, ...fields })}\n`);
  };
  try {
    const explanation = client.explain({
      ...fromJson(ExplainSpecSchema, asked.spec),
      volumes,
      chunks: UPLOADS[asked.upload ?? "in-order"] ?? inOrder,
      timeoutMs: asked.timeout_s === undefined ? undefined : asked.timeout_s * 1000,
    });
    for await (const event of explanation) {
      tell(event.kind, fieldsOf(event));
      if (event.kind === "progress" && asked.cancel_after === "progress") explanation.cancel();
    }
  } catch (error) {
    if (!(error instanceof VoxplainError)) throw error;
    const retryAfter = error.retryAfterMs === undefined ? null : error.retryAfterMs / 1000;
    tell("error", { kind: error.name, reason: error.reason, field: error.field, retry_after_s: retryAfter });
  } finally {
    client.close();
  }
}

function fieldsOf(event: Event): object {
  switch (event.kind) {
    case "accepted":
      return { model: event.accepted.model, version: event.accepted.version };
    case "prediction":
      return { score: event.prediction.score, target_name: event.prediction.targetName };
    case "progress": {
      const { stage, methodKey, evaluationsDone, checkpoint, bytesReceived, bytesTotal } = event.progress;
      return {
        stage: Progress_Stage[stage],
        method_key: methodKey,
        evaluations_done: Number(evaluationsDone),
        checkpoint: checkpoint.length > 0,
        bytes_received: Number(bytesReceived),
        bytes_total: Number(bytesTotal),
      };
    }
    case "map": {
      const { header, shape, sha256 } = event.map;
      const { methodKey, modalities, snapshot } = header;
      return { method_key: methodKey, quantity: Quantity[header.quantity], modalities, shape, snapshot, sha256 };
    }
    case "result":
      return { method_key: event.result.methodKey, outcome: Outcome[event.result.outcome], reason: event.result.reason };
    case "record":
      return { maps: event.record.maps.length, model_digest: event.record.modelDigest };
    case "resuming": {
      const { fault, waitMs, fromCheckpoint } = event.resuming;
      return { reason: fault.reason, wait_s: waitMs / 1000, from_checkpoint: fromCheckpoint };
    }
  }
}

function readVolume(volume: Asked["volumes"][number]): Volume {
  const { buffer } = new Uint8Array(readFileSync(volume.file));
  const role = TensorRole[volume.role.replace("TENSOR_ROLE_", "") as keyof typeof TensorRole];
  return { modality: volume.modality, role, shape: volume.shape, affine: volume.affine, voxels: view(volume.data_type, buffer) };
}

function view(dataType: string, buffer: ArrayBuffer): Voxels {
  switch (DataType[dataType.replace("DATA_TYPE_", "") as keyof typeof DataType]) {
    case DataType.INT32:
      return new Int32Array(buffer);
    case DataType.INT16:
      return new Int16Array(buffer);
    case DataType.UINT8:
      return new Uint8Array(buffer);
    default:
      return new Float32Array(buffer);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  await answer(JSON.parse(line) as Asked);
  process.stdout.write('{"event":"end"}\n');
}
