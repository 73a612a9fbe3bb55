/**
 * UNets that are told what to paint, and the golden numbers of diffusers: predictions of all files of
 * weights, and gradients by parameters, by noisy items and by texts.
 *
 * @module
 */

import { join } from "@std/path";
import type { Device } from "../src/gpu/device.ts";
import { grad } from "../src/gpu/grad.ts";
import { makeGraph } from "../src/gpu/graph.ts";
import { mul, square } from "../src/gpu/ops/map.ts";
import { mean } from "../src/gpu/ops/sum.ts";
import { slice } from "../src/gpu/ops/view.ts";
import { constant, input, type Tensor } from "../src/gpu/tensor.ts";
import { toFloat32 } from "../src/formats/safetensors.ts";
import { readTensorFile } from "../src/formats/torch.ts";
import { denoisingNetwork } from "../src/model/denoiser.ts";
import { findFamily, readFamily } from "../src/model/families/mod.ts";
import type { TensorMap } from "../src/model/families/family.ts";
import { assembleModel, type Model } from "../src/model/model.ts";
import { parseNetwork } from "../src/model/network.ts";
import { parseSchedule } from "../src/diffusion/schedule.ts";
import { parameterInputs, viewParameters, type WeightDType } from "../src/model/parameters.ts";
import { weightsOf } from "../src/model/weights.ts";
import { weightBuffer, writeWeights } from "../src/diffusion/weights.ts";
import { byName, compare, type Comparison, readJson, readTensors } from "./comparison.ts";
import { channelsLast } from "./families.ts";
import { formulaWeights } from "./formula.ts";

/** The models in a folder, by their files. */
export async function* modelsIn(folder: string): AsyncGenerator<{ path: string; model: Model }> {
  const config = await readJson(join(folder, "config.json"));
  const network = denoisingNetwork({ network: parseNetwork(config) });
  const names: string[] = [];
  for await (const { name } of Deno.readDir(folder)) names.push(name);
  const schedule = parseSchedule({});
  for (const name of names.sort()) {
    const path = join(folder, name);
    if (name === "weights.json") {
      yield { path, model: assembleModel(network, schedule, formulaWeights(network), path) };
    }
    if (!/^(diffusion_pytorch_model|ldm).*\.(safetensors|ckpt)$/.test(name)) continue;
    const { tensors } = await readTensorFile(await Deno.readFile(path), path);
    const family = findFamily(tensors);
    const model = family
      ? readFamily(family, tensors, path, { config }).model
      : assembleModel(network, schedule, tensors, path);
    yield { path, model };
  }
}

/** A case: noisy items and conditions of a file, as inputs and their values. */
function inputsOf(io: TensorMap, outChannels: number) {
  const all = channelsLast(io.get("sample")!), text = io.get("encoder_hidden_states")!;
  const sample = input("sample", all.shape);
  const encoder_hidden_states = input("encoder_hidden_states", text.shape);
  const part = (from: number, count: number) => slice(sample, 3, from, count);
  const isFilling = all.shape[3] === 2 * outChannels + 1;
  return {
    inputs: {
      sample: isFilling ? part(0, outChannels) : sample,
      timestep: constant([...toFloat32(io.get("timestep")!)]),
      conditions: {
        encoder_hidden_states,
        ...(isFilling
          ? { mask: part(outChannels, 1), masked_image: part(outChannels + 1, outChannels) }
          : {}),
      },
    },
    by: [sample, encoder_hidden_states],
    values: { sample: all.values, encoder_hidden_states: toFloat32(text) },
  };
}

/** A model on a device, and what is computed of its prediction. */
export async function runOn(
  device: Device,
  model: Model,
  io: TensorMap,
  more: (prediction: Tensor, by: readonly Tensor[]) => Record<string, Tensor> = () => ({}),
  weightDType: WeightDType = "f32",
): Promise<Record<string, Float32Array>> {
  const network = denoisingNetwork(model), { layout } = network;
  const { inputs, by, values } = inputsOf(io, network.outChannels);
  const shards = parameterInputs(layout, "parameters", weightDType);
  const parameter = viewParameters(layout, shards, { weightDType });
  const prediction = network.forward({ parameter }, inputs);
  const outputs: Record<string, Tensor> = {
    prediction,
    ...more(prediction, [...shards, ...by]),
  };
  const weights = weightsOf(model, "parameters", weightDType), buffers: Disposable[] = [];
  using _ = { [Symbol.dispose]: () => buffers.forEach((buffer) => buffer[Symbol.dispose]()) };
  const bound = Object.fromEntries(
    Object.entries(weights).map(([name, values]) => {
      const buffer = weightBuffer(device, values);
      buffers.push(buffer);
      writeWeights(values, buffer);
      return [name, buffer];
    }),
  );
  using program = await device.compile(makeGraph(outputs), { buffers: bound });
  for (const [name, value] of Object.entries(values)) program.buffers[name].write(value);
  program.run();
  const results: Record<string, Float32Array> = {};
  for (const name of Object.keys(outputs)) {
    results[name] = Float32Array.from(await program.buffers[name].read());
  }
  return results;
}

/** Compares all files of weights and all inputs of a folder. */
export async function compareUNetCondition(
  device: Device,
  folder: string,
): Promise<Comparison[]> {
  const comparisons: Comparison[] = [], inputs: string[] = [];
  for await (const { name } of Deno.readDir(folder)) {
    if (/^io(-\w+)?\.safetensors$/.test(name)) inputs.push(name);
  }
  for await (const { path, model } of modelsIn(folder)) {
    for (const name of inputs.sort()) {
      const io = await readTensors(join(folder, name));
      const { prediction: actual } = await runOn(device, model, io);
      const expected = channelsLast(io.get("output")!).values;
      comparisons.push(
        compare(`${path} ${name}`, 1e-4, [{ name: "output", actual, expected }]),
      );
    }
    if (path.endsWith("weights.json")) continue;
    comparisons.push(await compareGradients(device, model, folder, path));
  }
  return comparisons;
}

async function compareGradients(
  device: Device,
  model: Model,
  folder: string,
  path: string,
): Promise<Comparison> {
  const io = await readTensors(join(folder, "io.safetensors"));
  const golden = await readTensors(join(folder, "grads.safetensors"));
  const weights = channelsLast(golden.get("weights")!), { layout } = model.network;
  const results = await runOn(device, model, io, (prediction, by) => {
    const loss = mean(mul(square(prediction), constant(weights.values, weights.shape)));
    const [byParameters, bySample, byText] = grad(loss, by);
    return { loss, byParameters, bySample, byText };
  });
  const gradients = byName(layout, Float32Array.from(results.byParameters));
  return compare(`${path} gradients`, 1e-4, [
    { name: "loss", actual: results.loss, expected: toFloat32(golden.get("loss")!) },
    {
      ...{ name: "sample", actual: results.bySample },
      expected: channelsLast(golden.get("sample")!).values,
    },
    {
      ...{ name: "encoder_hidden_states", actual: results.byText },
      expected: toFloat32(golden.get("encoder_hidden_states")!),
    },
    ...layout.specs.map(({ name }) => ({
      ...{ name, actual: gradients.get(name)!, expected: toFloat32(golden.get(name)!) },
    })),
  ]);
}
