/**
 * Texts as networks see them: the states that a text encoder gives their tokens.
 *
 * @module
 */

import { weightBuffer, writeWeights } from "../diffusion/weights.ts";
import type { MemoryPlan } from "../gpu/describe.ts";
import type { Device, TensorBuffer } from "../gpu/device.ts";
import { type Graph, makeGraph } from "../gpu/graph.ts";
import { input, inputName } from "../gpu/tensor.ts";
import { parameterInputs, viewParameters, type WeightDType } from "../model/parameters.ts";
import type { TextEncoderNetwork } from "../model/text_encoder.ts";
import { type Weighted, weightsOf } from "../model/weights.ts";
import type { WeightedTokens } from "../text/tokenizer.ts";
import type { LatentOptions } from "./autoencoder.ts";

/** What is to be read. */
export type Tokens = Pick<WeightedTokens, "ids"> & Partial<Pick<WeightedTokens, "weights">>;

/** The states of one text, so that they do not depend on those that are read beside it. */
function textGraph(
  { layout, forward }: TextEncoderNetwork,
  length: number,
  weightDType: WeightDType,
): Graph {
  const ids = input("ids", [1, length], "i32");
  const shards = parameterInputs(layout, "parameters", weightDType);
  const parameter = viewParameters(layout, shards, { weightDType, event: ids });
  return makeGraph({ states: forward({ parameter }, ids).states });
}

/** The memory that reading takes, weights included. */
export function planTexts(
  device: Device,
  network: TextEncoderNetwork,
  length: number,
  weightDType: WeightDType = "f32",
): MemoryPlan {
  return device.plan(textGraph(network, length, weightDType), {
    constant: parameterInputs(network.layout, "parameters", weightDType).map((x) => inputName(x)!),
  });
}

/**
 * Reads texts with an encoder, which is compiled for that and gives its memory back.
 *
 * @param length Tokens of each.
 * @returns `[length, width]` of each; fewer texts if the signal stops it.
 * @throws {LimitError} If it does not fit the device.
 * @throws {DeviceError} If the device fails.
 */
export async function readTexts(
  device: Device,
  encoder: Weighted<TextEncoderNetwork>,
  texts: readonly Tokens[],
  length: number,
  { weightDType = "f32", signal, onProgress }: LatentOptions & {
    readonly weightDType?: WeightDType | undefined;
  },
): Promise<Float32Array<ArrayBuffer>[]> {
  const weights = Object.entries(weightsOf(encoder, "parameters", weightDType));
  const owned: Disposable[] = [], buffers: Record<string, TensorBuffer> = {};
  const own = <T extends Disposable>(resource: T): T => {
    owned.push(resource);
    return resource;
  };
  try {
    for (const [name, values] of weights) {
      writeWeights(values, buffers[name] = own(weightBuffer(device, values)));
    }
    const program = own(
      await device.compile(textGraph(encoder.network, length, weightDType), {
        ...{ label: "to read texts", buffers, constant: Object.keys(buffers) },
      }),
    );
    const read: Float32Array<ArrayBuffer>[] = [];
    for (const { ids, weights } of texts) {
      if (signal?.aborted) break;
      program.buffers.ids.write(ids);
      program.run();
      const states = Float32Array.from(await program.buffers.states.read());
      read.push(weights ? weigh(states, weights) : states);
      onProgress?.(read.length, texts.length);
    }
    return read;
  } finally {
    for (const resource of owned.toReversed()) resource[Symbol.dispose]();
  }
}

/**
 * States in which some tokens weigh more: multiplied by their weights, and then all by what brings the
 * mean back, as AUTOMATIC1111's web UI does it.
 */
export function weigh(
  states: Float32Array<ArrayBuffer>,
  weights: ArrayLike<number>,
): Float32Array<ArrayBuffer> {
  if (Array.prototype.every.call(weights, (weight) => weight === 1)) return states;
  const width = states.length / weights.length;
  const weighed = states.map((x, i) => x * weights[Math.floor(i / width)]);
  const sum = (values: Float32Array) => values.reduce((total, x) => total + x, 0);
  const ratio = sum(states) / sum(weighed);
  return weighed.map((x) => x * ratio);
}
