import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { readNifti, writeNifti } from "../src/nifti.js";

test("what is written is read again, whichever axis is fastest", async () => {
  const folder = await mkdtemp(join(tmpdir(), "voxplain-"));
  try {
    const affine = [-2, 0, 0, 10, 0, 2, 0, -8, 0, 0, 3, -12, 0, 0, 0, 1];
    const voxels = Float32Array.from({ length: 24 }, (_, place) => place / 2);
    for (const name of ["map.nii", "map.nii.gz"]) {
      await writeNifti(join(folder, name), { voxels, shape: [2, 3, 4], affine });
      assert.deepEqual(await readNifti(join(folder, name)), { voxels, shape: [2, 3, 4], affine });
    }
    await writeFile(join(folder, "text.nii"), "no header");
    await assert.rejects(readNifti(join(folder, "text.nii")), { reason: "NOT_NIFTI" });
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("a file of the demo is read as nibabel reads it", async () => {
  const { voxels, shape, affine } = await readNifti("../../examples/glioma_demo/cases/case-1/t1c.nii.gz");
  assert.deepEqual([voxels.constructor.name, shape], ["Int16Array", [56, 64, 56]]);
  assert.equal(affine?.length, 16);
  assert.equal([...voxels].reduce((sum, value) => sum + value, 0), 27469359);
  assert.equal(voxels[(30 * 64 + 20) * 56 + 25], 356);
});
