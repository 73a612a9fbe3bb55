/**
 * A tiny safety checker, its pictures, and what PyTorch makes of them.
 *
 * @module
 */

import { fromFileUrl, join } from "@std/path";
import { type FileTensor, toFloat32 } from "../src/formats/safetensors.ts";
import { parseClipImageProcessor } from "../src/model/clip_image_processor.ts";
import { parseSafetyChecker } from "../src/model/safety_checker.ts";
import type { SafetyChecker } from "../src/model/text_to_image.ts";
import { assembleNetwork } from "../src/model/weights.ts";
import type { Samples } from "../src/sample/options.ts";
import type { SafetyVerdict } from "../src/sample/safety_check.ts";
import { readJson, readTensors } from "./comparison.ts";

/** The folder of the fixtures. */
export const checkerFolder = fromFileUrl(new URL("fixtures/safety-checker", import.meta.url));

/** The checker. */
export async function readChecker(): Promise<SafetyChecker> {
  const [config, settings, tensors] = [
    await readJson(join(checkerFolder, "config.json")),
    await readJson(join(checkerFolder, "preprocessor_config.json")),
    await readTensors(join(checkerFolder, "model.safetensors")),
  ];
  return {
    ...assembleNetwork(parseSafetyChecker(config), tensors, "the checker"),
    processor: parseClipImageProcessor(settings),
  };
}

/** Pictures, and what PyTorch makes of them. */
export async function readChecked() {
  const io = await readTensors(join(checkerFolder, "io.safetensors"));
  const { shape, bytes } = io.get("pictures")!, [count, ...sides] = shape;
  const data = Float32Array.from(bytes, (byte) => byte / 127.5 - 1);
  const pictures: Samples = { count, shape: sides, data };
  const numbers = (name: string) => toFloat32(io.get(name) as FileTensor);
  const verdicts: SafetyVerdict[] = await readJson(join(checkerFolder, "verdicts.json"));
  return { pictures, bytes, numbers, verdicts };
}

/** The checker with other parameters. */
export const withParameters = (
  checker: SafetyChecker,
  change: (name: string, values: Float32Array<ArrayBuffer>) => Float32Array<ArrayBuffer>,
): SafetyChecker => {
  const { network: { layout }, parameters } = checker;
  if (parameters instanceof Float32Array) throw new TypeError("They are read one by one here");
  return {
    ...checker,
    parameters: {
      read: (index) => change(layout.specs[index].name, parameters.read(index).slice()),
    },
  };
};
