/**
 * Autoencoders and the golden numbers of diffusers: latents, pictures and codes of all files of
 * weights, and gradients by parameters and by pictures.
 *
 * @module
 */

import { join } from "@std/path";
import type { Device } from "../src/gpu/device.ts";
import { grad } from "../src/gpu/grad.ts";
import { makeGraph } from "../src/gpu/graph.ts";
import { add, exp, mul, square, sub } from "../src/gpu/ops/map.ts";
import { mean, sum } from "../src/gpu/ops/sum.ts";
import { constant, input, type Tensor } from "../src/gpu/tensor.ts";
import { weightBuffer, writeWeights } from "../src/diffusion/weights.ts";
import { type FileTensor, toFloat32 } from "../src/formats/safetensors.ts";
import { readTensorFile } from "../src/formats/torch.ts";
import { findAutoencoderFamily, readAutoencoderFamily } from "../src/model/families/mod.ts";
import type { TensorMap } from "../src/model/families/family.ts";
import "../src/model/model.ts";
import { type AutoencoderNetwork, autoencoderNetwork, parseNetwork } from "../src/model/network.ts";
import { fileShape, parameterInputs, viewParameters } from "../src/model/parameters.ts";
import { assembleNetwork, type Weighted, weightsOf } from "../src/model/weights.ts";
import { sizeOf } from "../src/shape.ts";
import {
  byName,
  compare,
  compareGradients,
  type Comparison,
  readJson,
  readTensors,
} from "./comparison.ts";
import { channelsLast } from "./families.ts";
import { hashed } from "./formula.ts";

type Autoencoder = Weighted<AutoencoderNetwork>;

/** Weights by the formula of the case with the real sizes. */
const formulaWeights = ({ layout }: AutoencoderNetwork): TensorMap =>
  new Map(layout.specs.map((spec) => {
    const { name } = spec, shape = fileShape(spec);
    const bound = Math.fround(Math.sqrt(3 / sizeOf(shape.slice(1))));
    const scaled = (v: number) =>
      shape.length > 1 ? v * bound : name.endsWith(".bias") ? v / 8 : 1 + v / 4;
    const tensor: FileTensor = {
      ...{ dtype: "F32", shape },
      get bytes() {
        return new Uint8Array(hashed(name, sizeOf(shape)).map(scaled).buffer);
      },
    };
    return [name, tensor];
  }));

/** The autoencoder in a folder: of diffusers, of latent diffusion, or with weights by a formula. */
export async function readAutoencoder(folder: string): Promise<Autoencoder> {
  const config = await readJson(join(folder, "config.json"));
  for await (const { name } of Deno.readDir(folder)) {
    if (!/^(model|diffusion_pytorch_model)\./.test(name)) continue;
    const path = join(folder, name);
    const { tensors } = await readTensorFile(await Deno.readFile(path), path);
    const family = findAutoencoderFamily(tensors);
    if (family) return readAutoencoderFamily(family, tensors, path, config).autoencoder;
    return assembleNetwork(autoencoderNetwork(parseNetwork(config)), tensors, path);
  }
  const network = autoencoderNetwork(parseNetwork(config));
  return assembleNetwork(network, formulaWeights(network), folder);
}

/** The golden numbers of a folder: its own, or those of the one whose weights it has. */
export async function goldenOf(folder: string): Promise<{ io: TensorMap; grads?: TensorMap }> {
  const read = async (name: string) => {
    for (const place of [folder, folder.replace(/-(ldm|old-names)$/, "")]) {
      try {
        return await readTensors(join(place, `${name}.safetensors`));
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
  };
  const io = await read("io"), grads = await read("grads");
  return { io: io!, ...(grads ? { grads } : {}) };
}

/** What they are given; latents of their own where there is no noise to draw them by. */
interface Inputs {
  readonly image: Tensor;
  readonly noise?: Tensor;
  readonly latent?: Tensor;
}

/** What autoencoders are compared by, and the loss of the golden gradients. */
function outputsOf(network: AutoencoderNetwork, parameter: ReturnType<typeof viewParameters>, {
  image,
  noise,
  latent: own,
}: Inputs, weights: Tensor | undefined): Record<string, Tensor> {
  const forward = { parameter }, { mean: latents, logVariance } = network.encode(forward, image);
  const outputs: Record<string, Tensor> = logVariance ? { mean: latents, logvar: logVariance } : {
    latents,
  };
  let decoded: Tensor, penalty: Tensor;
  if (logVariance) {
    const latent = noise ? add(latents, mul(exp(mul(logVariance, 0.5)), noise)) : own!;
    decoded = network.decode(forward, latent);
    const each = sub(sub(add(square(latents), exp(logVariance)), 1), logVariance);
    const kl = mul(sum(each, [1, 2, 3]), 0.5);
    if (noise) {
      Object.assign(outputs, { latent, kl, decoded_mean: network.decode(forward, latents) });
    }
    penalty = mul(mean(kl), 0.01);
  } else {
    const { quantized, indices, loss } = network.quantize!(forward, latents);
    decoded = network.decode(forward, latents);
    Object.assign(outputs, { quantized, indices, commit_loss: loss });
    Object.assign(outputs, { again: network.decode(forward, quantized, true) });
    penalty = loss;
  }
  outputs.decoded = decoded;
  if (weights) outputs.loss = add(mean(mul(square(decoded), weights)), penalty);
  return outputs;
}

/** Compares what a folder holds with its golden numbers. */
export async function compareAutoencoder(device: Device, folder: string): Promise<Comparison[]> {
  const autoencoder = await readAutoencoder(folder), { network } = autoencoder;
  const { io, grads } = await goldenOf(folder), { layout } = network;
  const given = Object.fromEntries(
    ["image", io.has("noise") ? "noise" : "latent"].flatMap((name) =>
      io.has(name) ? [[name, channelsLast(io.get(name)!)]] : []
    ),
  );
  const weights = grads && channelsLast(grads.get("weights")!);
  const inputs = Object.fromEntries(
    Object.entries(given).map(([name, { shape }]) => [name, input(name, shape)]),
  ) as unknown as Inputs;
  const shards = parameterInputs(layout), parameter = viewParameters(layout, shards);
  const outputs = outputsOf(
    network,
    parameter,
    inputs,
    weights && constant(weights.values, weights.shape),
  );
  if (grads) {
    [outputs.byParameters, outputs.byImage] = grad(outputs.loss, [...shards, inputs.image]);
  }
  const values = weightsOf(autoencoder).parameters;
  using parameters = weightBuffer(device, values);
  writeWeights(values, parameters);
  using program = await device.compile(makeGraph(outputs), {
    ...{ label: folder, buffers: { parameters } },
  });
  for (const [name, { values }] of Object.entries(given)) program.buffers[name].write(values);
  program.run();
  const read = async (name: string) => Float32Array.from(await program.buffers[name].read());
  const pairs = [],
    expectedOf = (tensor: FileTensor) =>
      tensor.shape.length === 4 ? channelsLast(tensor).values : toFloat32(tensor);
  for (const name of Object.keys(outputs)) {
    const tensor = io.get(name === "again" ? "decoded" : name);
    if (tensor) pairs.push({ name, actual: await read(name), expected: expectedOf(tensor) });
  }
  const different = pairs.find(({ name }) => name === "indices");
  const comparisons = [
    compare(`${folder} outputs`, 1e-4, pairs.filter((pair) => pair !== different)),
    ...(different ? [compare(`${folder} indices`, 0, [different])] : []),
  ];
  if (!grads) return comparisons;
  const gradients = byName(layout, await read("byParameters"));
  const golden = layout.specs.map(({ name }) => ({
    ...{ name, actual: gradients.get(name)!, expected: toFloat32(grads.get(name)!) },
  }));
  const gradientPairs = [
    { name: "loss", actual: await read("loss"), expected: toFloat32(grads.get("loss")!) },
    { name: "image", actual: await read("byImage"), expected: expectedOf(grads.get("image")!) },
    ...golden,
  ];
  return [...comparisons, { ...compareGradients(folder, gradientPairs), tolerance: 1e-4 }];
}
