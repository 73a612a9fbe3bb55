/**
 * Texts as networks see them: the states that a text encoder gives their tokens.
 *
 * @module
 */

import type { MemoryPlan } from "../gpu/describe.ts";
import type { Device } from "../gpu/device.ts";
import { input } from "../gpu/tensor.ts";
import type { WeightDType } from "../model/parameters.ts";
import type { TextEncoderNetwork } from "../model/text_encoder.ts";
import type { Weighted } from "../model/weights.ts";
import type { WeightedTokens } from "../text/tokenizer.ts";
import type { LatentOptions } from "./autoencoder.ts";
import { type NetworkTask, planNetwork, withNetwork } from "./network_program.ts";

/** What is to be read. */
export type Tokens = Pick<WeightedTokens, "ids"> & Partial<Pick<WeightedTokens, "weights">>;

/** The states of one text, so that they do not depend on those that are read beside it. */
function reading({ forward }: TextEncoderNetwork, length: number): NetworkTask {
  const ids = input("ids", [1, length], "i32");
  return {
    input: ids,
    compute: (parameter) => ({ states: forward({ parameter }, ids).states }),
  };
}

/** The memory that reading takes, weights included. */
export const planTexts = (
  device: Device,
  network: TextEncoderNetwork,
  length: number,
  weightDType?: WeightDType,
): MemoryPlan => planNetwork(device, network.layout, reading(network, length), weightDType);

/**
 * Reads texts with an encoder, which is compiled for that and gives its memory back.
 *
 * @param length Tokens of each.
 * @returns `[length, width]` of each; fewer texts if the signal stops it.
 * @throws {LimitError} If it does not fit the device.
 * @throws {DeviceError} If the device fails.
 */
export function readTexts(
  device: Device,
  encoder: Weighted<TextEncoderNetwork>,
  texts: readonly Tokens[],
  length: number,
  { weightDType, signal, onProgress }: LatentOptions & {
    readonly weightDType?: WeightDType | undefined;
  },
): Promise<Float32Array<ArrayBuffer>[]> {
  const settings = { label: "to read texts", weightDType }, task = reading(encoder.network, length);
  return withNetwork(device, encoder, task, settings, async (program) => {
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
  });
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
