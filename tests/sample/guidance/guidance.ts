/**
 * Models to guide, and estimates of denoisers as arrays.
 *
 * @module
 */

import { NoiseSchedule } from "../../../src/diffusion/schedule.ts";
import type { Denoiser } from "../../../src/diffusion/denoiser.ts";
import type { Device } from "../../../src/gpu/device.ts";
import { makeGraph } from "../../../src/gpu/graph.ts";
import { input } from "../../../src/gpu/tensor.ts";
import type { LoadedModel, Model } from "../../../src/model/model.ts";
import { writeWeights } from "../../../src/diffusion/weights.ts";
import { conditionInputs, writeConditions } from "../../../src/sample/conditions.ts";
import { sizeOf } from "../../../src/shape.ts";
import { randomModel, tinyNetwork } from "../../networks.ts";
import { Random } from "../../random.ts";

/** Three classes, of which another one is none; images are not clipped, which would hide much. */
export const classModel = (schedule: Record<string, unknown> = {}): LoadedModel => ({
  ...randomModel(tinyNetwork({ num_class_embeds: 4 }), { clip_sample: false, ...schedule }),
  classes: ["cat", "dog", "bird"],
});

/** The same network with other weights. */
export const weaker = (model: LoadedModel): LoadedModel => ({
  ...model,
  parameters: model.parameters.map((x, i) => 0.8 * x + 0.02 * Math.sin(i)),
});

/** Where estimates are made: of three images, in the middle of the noise. */
export const TIME = 400, BATCH = 3;

/** Noisy images, always the same. */
export function noisy(): Float32Array<ArrayBuffer> {
  const random = new Random("noisy");
  return Float32Array.from({ length: BATCH * 64 }, () => random.between(-1.5, 1.5));
}

/** α and σ there. */
export const levelOf = (model: Model) => new NoiseSchedule(model.schedule).levelAt(TIME);

/** What a denoiser says of the noisy images on a device. */
export async function estimateOn(
  device: Device,
  denoiser: Denoiser,
  conditions: Record<string, readonly number[]> = {},
): Promise<{ sample: Float32Array; epsilon: Float32Array }> {
  const values = conditionInputs(denoiser.conditions, BATCH), rank = denoiser.itemShape.length;
  const shape = [BATCH, ...denoiser.itemShape], one = [1, ...new Array(rank).fill(1)];
  const { sample, epsilon } = denoiser.estimate({
    x: input("x", shape),
    level: {
      time: input("time", [BATCH]),
      alpha: input("alpha", one),
      sigma: input("sigma", one),
    },
    conditions: values,
    random: {
      ...{ seed: input("seed", [2], "i32"), first: input("first", [1], "i32") },
      step: input("step", [1], "i32"),
    },
  });
  const weights = Object.keys(denoiser.weights);
  using program = await device.compile(makeGraph({ sample, epsilon }), { constant: weights });
  const { buffers } = program, level = denoiser.schedule.levelAt(TIME);
  for (const name of weights) {
    if (buffers[name]) writeWeights(denoiser.weights[name], buffers[name]);
  }
  buffers.x.write(noisy().subarray(0, sizeOf(shape)));
  buffers.time.write(new Array(BATCH).fill(level.time));
  for (const name of ["alpha", "sigma"] as const) buffers[name]?.write([level[name]]);
  const place = { count: BATCH, first: 0, here: BATCH };
  writeConditions(buffers, denoiser.conditions, { conditions }, place);
  program.run();
  return {
    sample: Float32Array.from(await buffers.sample.read()),
    epsilon: Float32Array.from(await buffers.epsilon.read()),
  };
}

/** Item k of arrays of three, by k. */
export const ofItem = (i: number) => Math.floor(i / 64);

/** Standard deviation of each item, as torch.std has it but for a factor. */
export function deviations(values: ArrayLike<number>): number[] {
  return Array.from({ length: BATCH }, (_, k) => {
    const item = Array.from({ length: 64 }, (_, i) => values[64 * k + i]);
    const mean = item.reduce((a, b) => a + b) / 64;
    return Math.sqrt(item.reduce((sum, x) => sum + (x - mean) ** 2, 0) / 63);
  });
}
