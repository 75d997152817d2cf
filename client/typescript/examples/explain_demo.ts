/**
 * Explains one case of the demo and writes a NIfTI file for each map.
 *
 *     voxplain-server --models examples/glioma_demo/models &
 *     node client/typescript/build/examples/explain_demo.js 127.0.0.1:50051 examples/glioma_demo/cases/case-1 out
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";

import { Client, Outcome, Progress_Stage } from "../src/index.js";
import { readNifti, writeNifti } from "../src/nifti.js";

const [server = "127.0.0.1:50051", folder = "examples/glioma_demo/cases/case-1", out = "demo-out"] = process.argv.slice(2);
const modalities = ["t1", "t1c", "t2", "flair"];

const volumes = await Promise.all(
  modalities.map(async (modality) => ({ modality, ...(await readNifti(join(folder, `${modality}.nii.gz`))) })),
);
const client = new Client(server);
const explanation = client.explain({ model: "glioma-demo", volumes, methods: ["grad-cam", "feature-ablation"], timeoutMs: 600_000 });
for await (const event of explanation) {
  switch (event.kind) {
    case "prediction":
      console.log(`the model says ${event.prediction.targetName}, score ${event.prediction.score.toFixed(2)}`);
      break;
    case "progress":
      console.log(`${Progress_Stage[event.progress.stage]} ${event.progress.methodKey} ${event.progress.evaluationsDone}`);
      break;
    case "map": {
      const { header, voxels, shape, affine } = event.map;
      const name = header.modalities.length > 1 ? "shared" : (header.modalities[0] ?? "");
      await mkdir(join(out, header.methodKey), { recursive: true });
      await writeNifti(join(out, header.methodKey, `${name}.nii.gz`), { voxels, shape, affine });
      break;
    }
    case "result":
      console.log(`${event.result.methodKey}: ${Outcome[event.result.outcome]} ${event.result.reason}`);
      break;
    case "resuming":
      console.log(`the connection broke; on again in ${event.resuming.waitMs} ms`);
      break;
  }
}
client.close();
