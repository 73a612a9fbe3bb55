/**
 * What is measured: single operations and whole steps, by the names that the peers' scripts use.
 *
 * @module
 */

import { attention } from "../src/gpu/ops/attention.ts";
import { conv2d, same } from "../src/gpu/ops/conv2d.ts";
import { groupNorm } from "../src/gpu/ops/group_norm.ts";
import { layerNorm } from "../src/gpu/ops/layer_norm.ts";
import { copy as copyOf, gelu, map, mul, silu, sub } from "../src/gpu/ops/map.ts";
import { linear, matmul, splitHeads } from "../src/gpu/ops/matmul.ts";
import { sum } from "../src/gpu/ops/sum.ts";
import { permute, reshape, slice } from "../src/gpu/ops/view.ts";
import { compilePrepared } from "../src/gpu/compile_prepared.ts";
import type { Device, Precision, Program } from "../src/gpu/device.ts";
import { grad } from "../src/gpu/grad.ts";
import { type Graph, makeGraph, nodesOf } from "../src/gpu/graph.ts";
import { simplify } from "../src/gpu/compile/simplify.ts";
import { GpuDevice } from "../src/gpu/wgsl/device.ts";
import { type Candidate, candidatesOf } from "../src/gpu/wgsl/tuner.ts";
import * as e from "../src/gpu/expression.ts";
import { input, type Tensor } from "../src/gpu/tensor.ts";
import { type DenoisingNetwork, type Fields, parseNetwork } from "../src/model/network.ts";
import { denoisingNetwork } from "../src/model/denoiser.ts";
import { initializeModel } from "../src/model/model.ts";
import { parameterInputs, viewParameters } from "../src/model/parameters.ts";
import { parseSchedule } from "../src/diffusion/schedule.ts";
import "../src/model/unet.ts";
import { parseTraining } from "../src/train/config.ts";
import { LossScale } from "../src/train/loss_scale.ts";
import { trainingStep } from "../src/train/step.ts";
import { latentBlock, latentUNet } from "./latent_block.ts";
import { copy, fma } from "./probes.ts";

/** Something to repeat: started by `run`, waited for by the device. */
export interface Workload extends Disposable {
  readonly flops: number;
  /** Bytes that have to be moved at least: what goes in and what comes out. */
  readonly bytes: number;
  /** The ways to do most of its work that a GPU has to choose from, and the one taken first. */
  readonly variants: readonly string[];
  /** Starts it `times` times over: steps of a training one by one, anything else in one go. */
  run(times?: number): void;
}

/** The networks that peers are measured on, 32 × 32 each. */
const networkOf = (fields: Fields) => denoisingNetwork({ network: parseNetwork(fields) });
export const networks: Record<string, DenoisingNetwork> = {
  small: networkOf({
    ...{ sample_size: 32, in_channels: 1, out_channels: 1, block_out_channels: [32, 64, 64] },
    ...{ layers_per_block: 1, norm_num_groups: 8, attention_head_dim: null },
    down_block_types: ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
    up_block_types: ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    ...{ freq_shift: 1, flip_sin_to_cos: false },
  }),
  cifar: networkOf({
    ...{
      sample_size: 32,
      in_channels: 3,
      out_channels: 3,
      block_out_channels: [128, 256, 256, 256],
    },
    ...{ layers_per_block: 2, norm_num_groups: 32, norm_eps: 1e-6, attention_head_dim: null },
    down_block_types: ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    up_block_types: ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    ...{ freq_shift: 1, flip_sin_to_cos: false, downsample_padding: 0 },
  }),
};

/** Makes the graph of a workload from the numbers and the word in its name, and its precision. */
type Builder = (numbers: number[], word: string, precision: Precision) => Graph;

/** Steps whose names end so keep 16-bit floats between kernels. */
const precisionOf = (name: string): Precision => name.endsWith("_f16") ? "f16" : "f32";

/** The gradient of a sum of squares, so that no part of it is trivial. */
function gradients(y: Tensor, by: Tensor[]): Record<string, Tensor> {
  const loss = sum(map([y, input("target", y.shape)], (y, t) => e.mul(e.sub(y, t), e.sub(y, t))));
  return Object.fromEntries(grad(loss, by).map((g, i) => [`gradient${i}`, g]));
}

const convInputs = ([batch, channels, side, out]: number[]) => ({
  x: input("x", [batch, side, side, channels]),
  w: input("w", [3, 3, channels, out]),
});

const attentionInputs = ([batch, length, channels]: number[]) =>
  ["q", "k", "v"].map((name) => input(name, [batch, length, channels])) as [Tensor, Tensor, Tensor];

function sampling([batch]: number[], network: string): Graph {
  const { layout, forward, itemShape } = networks[network];
  const x = input("x", [batch, 32, 32, itemShape[2]!]);
  const parameter = viewParameters(layout, parameterInputs(layout));
  const epsilon = forward({ parameter }, {
    sample: x,
    timestep: input("timestep", [batch]),
    conditions: {},
  });
  return makeGraph({}, [[x, map([x, epsilon], (x, n) => e.sub(x, e.mul(n, 0.01)))]]);
}

function training([batch]: number[], network: string, precision: Precision): Graph {
  const { [network]: net } = networks, shape = [batch, 32, 32, net.itemShape[2]!];
  const schedule = parseSchedule({});
  const batches = {
    images: input("images", shape),
    noise: input("noise", shape),
    timesteps: input("timesteps", [batch], "i32"),
  };
  const settings = parseTraining({ precision });
  const spec = { network: net, schedule, objective: settings, batch: batches, images: batch };
  return trainingStep(spec, settings);
}

const builders: readonly [pattern: RegExp, build: Builder][] = [
  [/^fma_(\d+)_(\d+)$/, ([size, rounds]) => makeGraph({ y: fma(input("x", [size]), rounds) })],
  [/^copy_(\d+)$/, ([mebibytes]) => makeGraph({ y: copy(input("x", [mebibytes * 2 ** 18])) })],
  [/^mm(\d+)$/, ([n]) => makeGraph({ y: matmul(input("a", [n, n]), input("b", [n, n])) })],
  [/^conv_(\d+)_(\d+)_(\d+)_(\d+)$/, (n) => {
    const { x, w } = convInputs(n);
    return makeGraph({ y: conv2d(x, w, undefined, same(3)) });
  }],
  [/^convd([xw])_(\d+)_(\d+)_(\d+)_(\d+)$/, ([batch, channels, side, out], by) => {
    const { x, w } = convInputs([batch, channels, side, out]);
    const y = conv2d(x, w, undefined, same(3));
    const [gradient] = grad(sum(mul(y, input("g", y.shape))), [by === "x" ? x : w]);
    return makeGraph({ gradient });
  }],
  [/^convfb_(\d+)_(\d+)_(\d+)_(\d+)$/, (n) => {
    const { x, w } = convInputs(n), y = conv2d(x, w, undefined, same(3));
    const [dx, dw] = grad(sum(mul(y, input("g", y.shape))), [x, w]);
    return makeGraph({ y, dx, dw });
  }],
  [/^gnsilu_(\d+)_(\d+)_(\d+)$/, ([batch, channels, side]) => {
    const x = input("x", [batch, side, side, channels]);
    const y = silu(groupNorm(x, input("scale", [channels]), input("shift", [channels]), 8, 1e-5));
    return makeGraph({ y: sub(y, 1) });
  }],
  [/^gnsilu_fb_(\d+)_(\d+)_(\d+)$/, ([batch, channels, side]) => {
    const x = input("x", [batch, side, side, channels]);
    const [scale, shift] = [input("scale", [channels]), input("shift", [channels])];
    return makeGraph(gradients(silu(groupNorm(x, scale, shift, 8, 1e-5)), [x, scale, shift]));
  }],
  [/^attn_(\d+)_(\d+)_(\d+)$/, (n) => makeGraph({ y: attention(...attentionInputs(n)) })],
  [/^attn_fb_(\d+)_(\d+)_(\d+)$/, (n) => {
    const qkv = attentionInputs(n);
    return makeGraph(gradients(attention(...qkv), qkv));
  }],
  // Heads of so many channels, over queries and keys.
  [/^heads_(\d+)_(\d+)_(\d+)_(\d+)_(\d+)$/, ([batch, heads, queries, keys, size]) => {
    const [q, k, v] = [queries, keys, keys].map((length, i) =>
      splitHeads(input("qkv"[i], [batch, length, heads * size]), heads)
    );
    const y = permute(attention(q, k, v), [0, 2, 1, 3]);
    return makeGraph({ y: copyOf(reshape(y, [batch, queries, heads * size])) });
  }],
  [/^linear_(\d+)_(\d+)_(\d+)$/, ([rows, channels, out]) => {
    const [w, bias] = [input("w", [out, channels]), input("bias", [out])];
    return makeGraph({ y: linear(input("x", [rows, channels]), w, bias) });
  }],
  [/^ln_(\d+)_(\d+)$/, ([rows, channels]) => {
    const [scale, shift] = [input("scale", [channels]), input("shift", [channels])];
    return makeGraph({ y: layerNorm(input("x", [rows, channels]), scale, shift, 1e-5) });
  }],
  [/^geglu_(\d+)_(\d+)$/, ([rows, channels]) => {
    const x = input("x", [rows, 2 * channels]);
    const [value, gate] = [slice(x, 1, 0, channels), slice(x, 1, channels, channels)];
    return makeGraph({ y: mul(value, gelu(gate)) });
  }],
  // Of Stable Diffusion: `f32` or `f16` weights.
  [
    /^latent_block_(f32|f16)_(\d+)_(\d+)_(\d+)$/,
    (sizes, type) => latentBlock(sizes, type === "f16"),
  ],
  [/^latent_unet_(f32|f16)_(\d+)_(\d+)$/, (sizes, type) => latentUNet(sizes, type === "f16")],
  [/^sample_(small|cifar)_b(\d+)(?:_f16)?$/, sampling],
  [/^train_(small|cifar)_b(\d+)(?:_f16)?$/, training],
];

/** What a report is of: on a CPU, be it one that poses as a GPU, and on a GPU. */
export const suites = {
  software: {
    probes: ["fma_262144_64", "copy_64"],
    ladder: [
      ...["mm512", "mm1024", "conv_32_32_28_32", "conv_16_128_32_128", "conv_16_256_16_256"],
      ...["conv_16_64_32_64", "convdx_16_64_32_64", "convdw_16_64_32_64", "conv_64_256_4_256"],
      ...["convfb_32_32_28_32", "convfb_16_64_32_64", "gnsilu_16_128_32", "gnsilu_fb_16_128_32"],
      ...["attn_16_256_128", "attn_fb_16_256_128"],
      // Of Stable Diffusion 1.5 at 512 x 512, two latents at a time, and of its decoder.
      ...["conv_2_320_64_320", "conv_2_1280_16_1280", "conv_2_1280_8_1280", "conv_1_512_64_512"],
      ...["conv_1_128_512_128", "heads_2_8_4096_4096_40", "heads_2_8_4096_77_40"],
      ...["heads_1_1_4096_4096_512", "linear_8192_320_320", "linear_8192_320_2560"],
      ...["linear_512_1280_1280", "linear_2_1280_1280", "ln_8192_320", "geglu_8192_1280"],
      ...["gnsilu_2_320_64"],
    ],
    steps: [
      ...["train_small_b32", "sample_small_b32", "sample_cifar_b1", "train_cifar_b4"],
      ...["sample_small_b1", "sample_small_b4", "sample_small_b16", "sample_small_b64"],
    ],
  },
  gpu: {
    probes: ["fma_1048576_64", "copy_1024"],
    ladder: [
      ...["mm1024", "mm4096", "conv_128_128_32_128", "convdx_128_128_32_128"],
      ...["convdw_128_128_32_128", "conv_128_256_16_256", "convdx_128_256_16_256"],
      ...["convdw_128_256_16_256", "conv_128_256_4_256", "convdw_128_256_4_256"],
      ...["conv_1_128_32_128", "conv_1_256_16_256", "gnsilu_128_128_32", "gnsilu_fb_128_128_32"],
      ...["attn_128_256_256", "attn_fb_128_256_256"],
    ],
    steps: [
      ...["train_cifar_b128", "train_cifar_b16", "train_small_b32", "sample_cifar_b1"],
      ...["train_cifar_b128_f16", "sample_cifar_b64_f16"],
      ...["sample_cifar_b4", "sample_cifar_b16", "sample_cifar_b64", "sample_small_b32"],
    ],
  },
} as const;

/**
 * The graph of a workload, and the word in its name.
 *
 * @throws {RangeError} If its name is unknown.
 */
export function graphOf(name: string): { graph: Graph; word: string } {
  const found = builders.map(([pattern, build]) => ({ match: pattern.exec(name), build }))
    .find(({ match }) => match);
  if (!found) {
    const { ladder, steps } = suites.software, known = [...ladder, ...steps];
    throw new RangeError(`Unknown workload ${name}; there are ones like ${known.join(", ")}`);
  }
  const parts = found.match!.slice(1), word = /^\d/.test(parts[0]) ? "" : parts.shift()!;
  return { graph: found.build(parts.map(Number), word, precisionOf(name)), word };
}

/**
 * Prepares a workload with random data.
 *
 * @throws {RangeError} If its name is unknown.
 */
export async function prepare(name: string, device: Device): Promise<Workload> {
  const { graph, word } = graphOf(name);
  const program = await compilePrepared(device, graph, {
    ...{ label: name, constant: ["parameters"], precision: precisionOf(name) },
  });
  fill(program, word);
  const isTraining = name.startsWith("train_");
  return {
    flops: program.flops,
    variants: device instanceof GpuDevice ? variantsOf(graph, program, device) : [],
    bytes: Object.values(program.buffers).reduce((n, { length }) => n + 4 * length, 0),
    run(times = 1) {
      if (!isTraining) program.run(times);
      else for (let i = 0; i < times; i++) program.run();
    },
    [Symbol.dispose]: () => program[Symbol.dispose](),
  };
}

/**
 * Names of the ways to do the operation that has most to compute, the one taken first: by a kernel of
 * its own, and by the operations that can stand for it.
 */
function variantsOf(graph: Graph, program: Program, { target }: GpuDevice): string[] {
  const flops = (node: Tensor) => node.op.flops?.(node) ?? 0;
  const mostOf = (simple: Graph) =>
    nodesOf(simple).filter((node) => node.op.variants).sort((a, b) => flops(b) - flops(a))[0];
  const candidates = [
    simplify(graph),
    simplify(graph, { computes: (x) => candidatesOf(x, target).length > 0 }),
  ]
    .map(mostOf).filter((node, i, all) => node && node.op !== all[i - 1]?.op)
    .flatMap((node) => candidatesOf(node, target));
  const text = (kernels: readonly { code?: string }[]) => kernels.map(({ code }) => code).join();
  const taken = new Set(program.describe().stages.map(({ kernels }) => text(kernels)));
  const isTaken = ({ kernels }: Candidate) => Number(taken.has(text(kernels)));
  return candidates.sort((a, b) => isTaken(b) - isTaken(a)).map((c) => c.name);
}

/** Numbers that are made for a buffer; a larger one has them several times. */
const PIECE = 2 ** 22;

/** Numbers that keep a network away from overflow and from denormal numbers. */
function fill({ buffers }: Program, network: string): void {
  let state = 1;
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) | 0) / 2 ** 31;
  for (const [name, buffer] of Object.entries(buffers)) {
    if (name === "moment1" || name === "moment2" || name === "history") continue;
    if (networks[network] && (name === "parameters" || name === "ema")) {
      buffer.write(initializeModel(networks[network], {}, 1).parameters);
    } else if (name === "rates") buffer.write([1e-4, 0.999, 1, 1, 0]);
    else if (name === "scaling") buffer.write(LossScale.first);
    else if (buffer.dtype === "i32") buffer.write(new Int32Array(buffer.length).fill(500));
    else {
      const values = Float32Array.from({ length: Math.min(buffer.length, PIECE) }, random);
      for (let at = 0; at < buffer.length; at += PIECE) {
        buffer.write(values.subarray(0, buffer.length - at), at);
      }
    }
  }
}
