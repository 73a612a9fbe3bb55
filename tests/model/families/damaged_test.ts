/**
 * Damaged files of other projects. More of them than in the suite:
 * `deno test -A tests/model/families/damaged_test.ts -- 2000`.
 *
 * @module
 */

import { assert } from "@std/assert";
import { InputError } from "../../../src/errors.ts";
import { readTensorFile } from "../../../src/formats/torch.ts";
import type { TensorMap } from "../../../src/model/families/family.ts";
import {
  findAutoencoderFamily,
  findFamily,
  readAutoencoderFamily,
  readFamily,
} from "../../../src/model/families/mod.ts";
import { findPipelineFamily, readPipelineFamily } from "../../../src/model/families/pipelines.ts";
import { flatten, type ParameterLayout } from "../../../src/model/parameters.ts";
import type { Weighted } from "../../../src/model/weights.ts";
import { mutate } from "../../mutate.ts";
import { Random } from "../../random.ts";

const COUNT = Number(Deno.args[0] ?? 150);

const fixtures = new URL("../../fixtures/", import.meta.url);
const read = async (folder: string, name: string) => ({
  bytes: await Deno.readFile(new URL(`${folder}/${name}`, fixtures)),
  config: JSON.parse(await Deno.readTextFile(new URL(`${folder}/config.json`, fixtures))),
});
const files = await Promise.all([
  read("ddpm-original", "model.ckpt"),
  read("ddpm-original", "model-legacy.ckpt"),
  read("ddpm-original", "model.safetensors"),
  read("lucidrains/v2", "model-1.pt"),
  read("adm/uncond-updown", "model.pt"),
  read("adm/classifier", "model.pt"),
  read("pipelines/single-file", "model.safetensors"),
  read("autoencoder/vq-ldm", "model.ckpt"),
]);

/** The networks that tensors make up, of whatever family; none if they are of no family. */
function networksOf(
  tensors: TensorMap,
  config: unknown,
): readonly Weighted<{ readonly layout: ParameterLayout }>[] {
  const family = findFamily(tensors), pipeline = findPipelineFamily(tensors);
  if (family) return [readFamily(family, tensors, "x.pt", { config }).model];
  if (pipeline) {
    const pieces = readPipelineFamily(pipeline, tensors, "x.pt", { config });
    return [pieces.denoiser, pieces.autoencoder, pieces.textEncoder].filter((piece) =>
      piece !== undefined
    );
  }
  const other = findAutoencoderFamily(tensors);
  return other ? [readAutoencoderFamily(other, tensors, "x.pt", config).autoencoder] : [];
}

Deno.test(`${COUNT} damaged files end in models, in files of nobody, or in an error that names them`, async () => {
  const random = new Random("damaged families");
  const told = { model: 0, nobody: 0, error: 0 };
  for (let i = 0; i < COUNT; i++) {
    const { bytes, config } = files[i % files.length];
    // What a file says of itself is where most can go wrong: the end of a zip, the start of others.
    const isZip = bytes[0] === 0x50, at = isZip ? bytes.length - 40_000 : 40_000;
    const [kept, changed] = isZip
      ? [bytes.subarray(0, at), mutate(bytes.slice(at), random)]
      : [bytes.subarray(at), mutate(bytes.slice(0, at), random)];
    const file = new Uint8Array(kept.length + changed.length);
    file.set(kept, isZip ? 0 : changed.length);
    file.set(changed, isZip ? kept.length : 0);
    try {
      const { tensors } = await readTensorFile(file, "x.pt"), found = networksOf(tensors, config);
      for (const { network, parameters } of found) flatten(network.layout, parameters);
      told[found.length ? "model" : "nobody"]++;
    } catch (error) {
      assert(error instanceof InputError, (error as Error).stack);
      assert(error.message.includes("x.pt") && error.message.length < 1500, error.message);
      told.error++;
    }
  }
  assert(told.error > 0.2 * COUNT && told.model > 0.05 * COUNT, JSON.stringify(told));
});
