/**
 * Golden numbers of other people's models.
 *
 * @module
 */

import { assertClose } from "../../close.ts";
import { openGpu } from "../../device.ts";
import { makeGraph } from "../../../src/gpu/graph.ts";
import { constant, input } from "../../../src/gpu/tensor.ts";
import { openDevice } from "../../../src/gpu/open.ts";
import { type FileTensor, toFloat32 } from "../../../src/formats/safetensors.ts";
import { readTensorFile } from "../../../src/formats/torch.ts";
import { denoisingNetwork } from "../../../src/model/denoiser.ts";
import type { Model } from "../../../src/model/model.ts";
import { flatten, parameterInputs, viewParameters } from "../../../src/model/parameters.ts";

/** The files of a folder of `tests/fixtures`. */
export function fixtureOf(folder: string) {
  const at = (name: string) => new URL(`../../fixtures/${folder}/${name}`, import.meta.url);
  return {
    json: async (name: string) => JSON.parse(await Deno.readTextFile(at(name))),
    tensors: async (name: string) => await readTensorFile(await Deno.readFile(at(name)), name),
  };
}

/** Numbers of `[batch, channels, height, width]` with the channels last. */
export function channelsLast(tensor: FileTensor) {
  const values = toFloat32(tensor), [n, c, h, w] = tensor.shape, pixels = h * w;
  return {
    shape: [n, h, w, c],
    values: values.map((_, i) => {
      const channel = i % c, pixel = Math.floor(i / c) % pixels, image = Math.floor(i / c / pixels);
      return values[(image * c + channel) * pixels + pixel];
    }),
  };
}

/** Fails unless a model predicts what its original does. */
export async function assertGolden(
  model: Model,
  io: {
    readonly sample: FileTensor;
    readonly timestep: FileTensor;
    readonly output: FileTensor;
    readonly labels?: FileTensor | undefined;
    readonly lowResolution?: FileTensor | undefined;
  },
  { device: kind = "cpu", tolerance = 1e-5 }: { device?: "cpu" | "gpu"; tolerance?: number } = {},
): Promise<void> {
  const network = denoisingNetwork(model), { layout } = network;
  const sample = channelsLast(io.sample), parameters = parameterInputs(layout);
  const low = io.lowResolution && channelsLast(io.lowResolution);
  const prediction = network.forward({ parameter: viewParameters(layout, parameters) }, {
    sample: input("sample", sample.shape),
    timestep: constant([...toFloat32(io.timestep)]),
    conditions: {
      ...(io.labels ? { labels: constant(Int32Array.from(toFloat32(io.labels))) } : {}),
      ...(low ? { low_resolution: constant(low.values, low.shape) } : {}),
    },
  });
  using device = kind === "gpu" ? await openGpu() : await openDevice(kind);
  using program = await device.compile(makeGraph({ prediction }));
  program.buffers.parameters.write(flatten(layout, model.parameters));
  program.buffers.sample.write(sample.values);
  program.run();
  const found = await program.buffers.prediction.read();
  assertClose(found, channelsLast(io.output).values, tolerance, "output");
}
