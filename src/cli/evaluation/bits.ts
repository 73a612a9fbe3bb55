/**
 * The likelihood of images under a model, `--metric bpd`.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Dataset } from "../../data/dataset.ts";
import type { Device } from "../../gpu/device.ts";
import type { Model } from "../../model/model.ts";
import {
  type Bound,
  type Density,
  type LikelihoodOptions,
  measureBound,
  measureDensity,
} from "../../sample/likelihood.ts";
import type { Samples } from "../../sample/options.ts";
import { sizeOf } from "../../shape.ts";
import { formatLeft, type Progress } from "../terminal/progress.ts";

/** The largest batch. */
const MAX_BATCH = 32;
/** The default number of images. */
export const BITS_COUNT = 64;
/** The default number of ODE steps, of four evaluations each. */
export const BITS_STEPS = 64;
/** Rows in the table of timesteps. */
const ROWS = 10;

/** How bits are measured. */
export interface BitsOptions {
  /** By the variational bound, the ODE, or both. */
  readonly by: string;
  /** Images, spread evenly over the data. */
  readonly count: number;
  /** Of the ODE. */
  readonly steps: number;
  readonly seed: number;
  readonly signal: AbortSignal;
}

/** What was measured, by either way. */
export interface Bits {
  readonly count: number;
  readonly vlb?: Bound & { readonly decoder: number };
  readonly ode?: Density & { readonly steps: number };
}

/** @throws {InputError} If a model has no likelihood of images. */
export function checkBits({ autoencoder }: Model, place: string): void {
  if (!autoencoder) return;
  throw new InputError(
    `Cannot measure bits per dimension of ${place}: it is a model of latents, which gives ` +
      "probabilities of these and not of images, of which its autoencoder leaves something out; " +
      "--metric fd compares its images",
  );
}

/** Measures images of a data set. */
export async function measureBits(
  device: Device,
  model: Model,
  data: Dataset,
  { by, count, steps, seed, signal }: BitsOptions,
  progress: Progress,
): Promise<Bits> {
  const { images, labels } = await pick(data, count);
  const settings: LikelihoodOptions = {
    ...{ seed, signal, batchSize: Math.ceil(count / Math.ceil(count / MAX_BATCH)) },
    ...(labels && model.network.conditions(images.shape).labels ? { labels } : {}),
  };
  const options = (name: string): LikelihoodOptions => {
    const began = performance.now();
    return {
      ...settings,
      onProgress(done, total) {
        const left = formatLeft(done, total, (performance.now() - began) / 1000);
        progress.update(`${name}: evaluation ${done} of ${total}${left}`);
      },
    };
  };
  const bound = by === "ode"
    ? undefined
    : await measureBound(device, model, images, options("bound"));
  const density = by === "vlb"
    ? undefined
    : await measureDensity(device, model, images, { ...options("flow"), steps });
  progress.clear();
  return {
    count,
    ...(bound ? { vlb: { ...bound, decoder: bound.terms[0] } } : {}),
    ...(density ? { ode: { steps, ...density } } : {}),
  };
}

/** Evenly spaced images of a data set. */
async function pick(set: Dataset, count: number) {
  const { shape, labels } = set, each = sizeOf(shape), data = new Float32Array(count * each);
  const picked = Array.from({ length: count }, (_, i) => Math.floor(i * set.count / count));
  for (const [i, index] of picked.entries()) await set.read(index, data, i * each);
  const images: Samples = { count, shape, data };
  return { images, labels: labels && picked.map((index) => labels[index]) };
}

/** A table of what was measured. */
export function describeBits({ vlb, ode, count }: Bits, model: string, data: Dataset): string {
  const row = (name: string, value: string) => `${name.padEnd(24)}${value}`;
  const lines = [
    row("model", model),
    row("data", `${data.name}, ${count} of ${data.count} images`),
  ];
  if (vlb) {
    lines.push(row("variational bound", formatMean(vlb)));
    const { terms } = vlb, width = Math.ceil((terms.length - 1) / ROWS);
    lines.push(row("  prior", vlb.prior.toFixed(6)));
    for (let last = terms.length - 1; last > 0; last -= width) {
      const first = Math.max(1, last - width + 1);
      const sum = terms.slice(first, last + 1).reduce((a, b) => a + b);
      lines.push(row(`  t = ${first === last ? last : `${last} to ${first}`}`, sum.toFixed(6)));
    }
    lines.push(row("  t = 0 (decoder)", terms[0].toFixed(6)));
  }
  if (ode) lines.push(row("probability-flow ODE", formatMean(ode)));
  return lines.join("\n");
}

/** "1.2345 bits/dim ± 0.0123", with the standard error of the mean. */
export function formatMean(
  { total, images }: { total: number; images: readonly number[] },
): string {
  const squares = images.reduce((sum, x) => sum + (x - total) ** 2, 0);
  const error = Math.sqrt(squares / (images.length - 1) / images.length);
  return `${total.toFixed(4)} bits/dim` + (images.length > 1 ? ` ± ${error.toFixed(4)}` : "");
}
