/**
 * Models of other projects and the golden numbers of their originals.
 *
 * @module
 */

import { join } from "@std/path";
import type { Device } from "../src/gpu/device.ts";
import { makeGraph } from "../src/gpu/graph.ts";
import { constant, input } from "../src/gpu/tensor.ts";
import { type FileTensor, toFloat32 } from "../src/formats/safetensors.ts";
import { readTensorFile } from "../src/formats/torch.ts";
import { findFamily, readFamily } from "../src/model/families/mod.ts";
import type { TensorMap } from "../src/model/families/family.ts";
import type { Model } from "../src/model/model.ts";
import { formulaTensors } from "./formula.ts";
import { flatten, parameterInputs, viewParameters } from "../src/model/parameters.ts";

/** Images of a file, `[batch, channels, height, width]`, with channels last. */
export function channelsLast(
  tensor: FileTensor,
): { shape: number[]; values: Float32Array<ArrayBuffer> } {
  const [n, c, h, w] = tensor.shape, from = toFloat32(tensor);
  const values = Float32Array.from({ length: from.length }, (_, i) => {
    const k = i % c, x = Math.floor(i / c) % w, y = Math.floor(i / c / w) % h;
    return from[((Math.floor(i / c / w / h) * c + k) * h + y) * w + x];
  });
  return { shape: [n, h, w, c], values };
}

/** What an original was shown, and what came of it. */
export interface Io {
  readonly sample: FileTensor;
  readonly timestep: FileTensor;
  readonly output: FileTensor;
  readonly labels?: FileTensor | undefined;
  readonly lowResolution?: FileTensor | undefined;
}

/** The same out of a file, in which each project calls it otherwise. */
export function ioOf(tensors: TensorMap): Io {
  const first = (...names: string[]) => tensors.get(names.find((name) => tensors.has(name)) ?? "");
  return {
    sample: first("x", "sample")!,
    timestep: first("timesteps", "timestep", "time", "t")!,
    // The moving average is preferred.
    output: first("output_ema", "output")!,
    ...{ labels: first("y"), lowResolution: first("low_res") },
  };
}

/** What a model makes of the same, and what is expected of it. */
export async function predictGolden(device: Device, model: Model, io: Io) {
  const { network } = model, { layout } = network;
  const sample = channelsLast(io.sample), low = io.lowResolution && channelsLast(io.lowResolution);
  const isDenoiser = network.kind === "denoiser", parameters = parameterInputs(layout);
  const prediction = network.forward({ parameter: viewParameters(layout, parameters) }, {
    sample: input("sample", sample.shape),
    timestep: constant([...toFloat32(io.timestep)]),
    conditions: {
      ...(io.labels ? { labels: constant(Int32Array.from(toFloat32(io.labels))) } : {}),
      ...(low ? { low_resolution: constant(low.values, low.shape) } : {}),
    },
  });
  using program = await device.compile(makeGraph({ prediction }));
  program.buffers.parameters.write(flatten(layout, model.parameters));
  program.buffers.sample.write(sample.values);
  program.run();
  return {
    actual: await program.buffers.prediction.read(),
    expected: isDenoiser ? channelsLast(io.output).values : toFloat32(io.output),
  };
}

/** Files of weights, and the shapes of those that a formula gives. */
const WEIGHTS = /^model[-\w]*\.(pt|pth|ckpt|bin|safetensors)$/, FORMULA = "weights.json";

/** The models in a folder, by their files, with what is known of their originals. */
export async function* goldenModels(
  folder: string,
): AsyncGenerator<{ readonly path: string; readonly model: Model; readonly io: Io }> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(folder)) names.push(name);
  const read = async (name: string): Promise<TensorMap> =>
    (await readTensorFile(await Deno.readFile(join(folder, name)), name)).tensors;
  const json = async (name: string) => JSON.parse(await Deno.readTextFile(join(folder, name)));
  for (const name of names.filter((name) => WEIGHTS.test(name) || name === FORMULA).sort()) {
    const tensors = name === FORMULA
      ? formulaTensors(Object.entries<number[]>((await json(name)).shapes))
      : await read(name);
    const family = findFamily(tensors), config = await json("config.json");
    if (!family) throw new Error(`${join(folder, name)} is of no family that is known`);
    const { model } = readFamily(family, tensors, name, { config });
    yield { path: join(folder, name), model, io: ioOf(await read("io.safetensors")) };
  }
}
