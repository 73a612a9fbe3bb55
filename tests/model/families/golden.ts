/**
 * Golden numbers of other people's models.
 *
 * @module
 */

import { assertClose } from "../../close.ts";
import { openCpuAs, openGpu } from "../../device.ts";
import { type Io, predictGolden } from "../../families.ts";
import { readTensorFile } from "../../../src/formats/torch.ts";
import type { Model } from "../../../src/model/model.ts";

/** The files of a folder of `tests/fixtures`. */
export function fixtureOf(folder: string) {
  const at = (name: string) => new URL(`../../fixtures/${folder}/${name}`, import.meta.url);
  return {
    json: async (name: string) => JSON.parse(await Deno.readTextFile(at(name))),
    tensors: async (name: string) => await readTensorFile(await Deno.readFile(at(name)), name),
  };
}

/** Fails unless a model predicts what its original does. */
export async function assertGolden(
  model: Model,
  io: Io,
  kind: "cpu" | "gpu" = "cpu",
): Promise<void> {
  using device = kind === "gpu" ? await openGpu() : await openCpuAs(2, {});
  const { actual, expected } = await predictGolden(device, model, io);
  assertClose(actual, expected, 1e-5, "output");
}
