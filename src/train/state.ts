/**
 * What a training needs to go on: {@linkcode TrainingState}.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { TensorBuffer } from "../gpu/device.ts";
import { JoinedBuffer } from "../gpu/joined_buffer.ts";
import { shardName } from "../model/parameters.ts";

/** Everything that a training needs to go on, bit for bit as if it had not stopped. */
export interface TrainingState<A = StateArrays> {
  /** How many steps are done. */
  readonly step: number;
  /** The arrays. */
  readonly arrays: A;
}

/** An array of a state that is read part by part, as from a file. */
export interface StateReader {
  /** How many numbers there are. */
  readonly length: number;
  /** So many numbers from a place on. */
  read(offset: number, length: number): Float32Array<ArrayBuffer>;
}

/** A state as it is gone on from: its arrays in memory, or to be read. */
export type RestorableState = TrainingState<
  Readonly<Record<string, Float32Array<ArrayBuffer> | StateReader | undefined>>
>;

/** Numbers that are read at a time. */
const CHUNK = 1 << 22;

/**
 * An array of a training's state: the weights, the moving averages of their gradients and of the
 * gradients' squares, the moving average of the weights, losses and gradient norms.
 */
export type StateName = "parameters" | "moment1" | "moment2" | "ema" | "history";

/** Those that every training has. */
const STATE_NAMES: readonly StateName[] = ["parameters", "moment1", "moment2", "ema", "history"];

/**
 * The arrays of a training's state. `squaredLosses` are those of each timestep, `[T, 10]`, where
 * timesteps are drawn by `loss_second_moment`; `scaling` is that of the loss, for `f16`.
 */
export type StateArrays =
  & Readonly<Record<StateName, Float32Array<ArrayBuffer>>>
  & {
    readonly squaredLosses?: Float32Array<ArrayBuffer>;
    readonly scaling?: Float32Array<ArrayBuffer>;
  };

/** The buffers among a program's that an array of the state lies in. */
export function shardsAmong(
  buffers: Readonly<Record<string, TensorBuffer>>,
  name: string,
): TensorBuffer[] {
  const shards: TensorBuffer[] = [];
  for (let k = 0; buffers[shardName(name, k)]; k++) shards.push(buffers[shardName(name, k)]);
  return shards;
}

/** The buffers among a program's that the state lies in; shards as if they were one. */
export function stateBuffers(
  buffers: Readonly<Record<string, TensorBuffer>>,
): Record<string, TensorBuffer> {
  const names = [...STATE_NAMES, "squaredLosses", "scaling"].filter((name) => buffers[name]);
  return Object.fromEntries(names.map((name) => {
    const shards = shardsAmong(buffers, name);
    return [name, shards.length === 1 ? shards[0] : new JoinedBuffer(shards)];
  }));
}

/**
 * Writes the arrays of a state to where they belong.
 *
 * @throws {InputError} If it is no state, or that of another network.
 */
export function restoreState(
  { step, arrays }: RestorableState,
  buffers: Readonly<Record<string, TensorBuffer>>,
): void {
  if (!(Number.isSafeInteger(step) && step >= 0)) {
    throw new InputError(`Cannot resume: ${step} is no number of steps`);
  }
  for (const [name, { length }] of Object.entries(buffers)) {
    if (arrays[name]?.length !== length) {
      throw new InputError(
        `Cannot resume: the state has ${arrays[name]?.length ?? "no"} ${name}, but the training ` +
          `wants ${length}`,
      );
    }
  }
  for (const [name, buffer] of Object.entries(buffers)) {
    const values = arrays[name]!;
    if (values instanceof Float32Array) buffer.write(values);
    else {
      for (let at = 0; at < values.length; at += CHUNK) {
        buffer.write(values.read(at, Math.min(CHUNK, values.length - at)), at);
      }
    }
  }
}
