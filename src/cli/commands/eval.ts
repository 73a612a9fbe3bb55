/**
 * `ddpm eval`: the likelihood of images under a model.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { sizeOf } from "../../shape.ts";
import {
  type Bound,
  type Density,
  type LikelihoodOptions,
  measureBound,
  measureDensity,
} from "../../sample/likelihood.ts";
import type { Samples } from "../../sample/options.ts";
import type { Dataset } from "../../data/dataset.ts";
import { heldBack, openDataset } from "../data/data.ts";
import { checkDeviceFlags, deviceFlags, openForCommand } from "../terminal/device.ts";
import { openModel } from "../run/open_model.ts";
import { type Flag, parseFlags } from "../terminal/flags.ts";
import { parseImages } from "./image_options.ts";
import { formatLeft, print, Progress } from "../terminal/progress.ts";

/** The largest batch. */
const MAX_BATCH = 32;
/** The default number of images. */
const DEFAULT_COUNT = 64;
/** The default number of ODE steps, of four evaluations each. */
const DEFAULT_STEPS = 64;
/** Rows in the table of timesteps. */
const ROWS = 10;

/** The flags of `eval`. */
export const evalFlags = {
  metric: {
    kind: "text",
    choices: ["bpd"],
    value: "NAME",
    default: "bpd",
    help: "what to measure; bpd is bits per dimension",
  },
  model: {
    kind: "text",
    value: "MODEL",
    default: "mnist",
    help: "as for sample",
  },
  data: {
    kind: "text",
    value: "DATA",
    help:
      "as for train; the test split where there is one (t10k-* of IDX folders), otherwise all of it",
  },
  count: {
    kind: "integer",
    min: 1,
    max: 10_000_000,
    default: DEFAULT_COUNT,
    help: "number of images, spread evenly over the data",
  },
  by: {
    kind: "text",
    choices: ["vlb", "ode", "both"],
    value: "HOW",
    default: "both",
    help:
      "vlb (the variational bound), ode (the exact likelihood of the probability-flow ODE), or both",
  },
  steps: {
    kind: "integer",
    min: 1,
    max: 100_000,
    default: DEFAULT_STEPS,
    help: "ODE steps, of four evaluations each",
  },
  seed: {
    kind: "integer",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    default: 0,
    help: "random seed",
  },
  json: { kind: "switch", help: "print JSON, with every timestep and every image" },
  ...deviceFlags,
} as const satisfies Record<string, Flag>;

/** Runs the command. */
export async function evalCommand(args: readonly string[]): Promise<void> {
  const { flags, rest } = parseFlags(args, evalFlags);
  if (rest.length) throw new InputError(`eval takes flags only, not ${rest[0]}`);
  checkDeviceFlags(flags);
  const { model: place = "mnist", seed = 0, by = "both" } = flags;
  if (flags.data === undefined) {
    throw new InputError("eval needs --data: mnist, a folder or a file");
  }
  if (by === "vlb" && flags.steps !== undefined) {
    throw new InputError("--steps is for the ODE: the bound takes every timestep");
  }
  const model = await openModel(place), { network } = model;
  const [height, width, channels] = network.itemShape;
  const size = height && width ? [height, width] : null;
  using progress = new Progress();
  const from = await heldBack(flags.data) ?? flags.data;
  const pictures = parseImages({ channels, size });
  const data = await openDataset(from, pictures, progress);
  if (flags.count !== undefined && flags.count > data.count) {
    throw new InputError(`--count is ${flags.count}, but ${from} has ${data.count} images`);
  }
  const count = flags.count ?? Math.min(DEFAULT_COUNT, data.count);
  const { images, labels } = await pick(data, count);
  const settings: LikelihoodOptions = {
    ...{ seed, batchSize: Math.ceil(count / Math.ceil(count / MAX_BATCH)) },
    ...(labels && network.conditions(images.shape).labels ? { labels } : {}),
  };

  using device = await openForCommand(flags, progress);
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
  const steps = flags.steps ?? DEFAULT_STEPS;
  const density = by === "vlb"
    ? undefined
    : await measureDensity(device, model, images, { ...options("flow"), steps });
  progress.clear();
  const facts = {
    ...{ metric: "bpd", model: place, data: from, count, seed },
    ...(bound ? { vlb: { ...bound, decoder: bound.terms[0] } } : {}),
    ...(density ? { ode: { steps, ...density } } : {}),
  };
  print(flags.json ? JSON.stringify(facts) : describe(facts, data, bound, density));
}

/** Evenly spaced images of a data set. */
async function pick(set: Dataset, count: number) {
  const { shape, labels } = set, each = sizeOf(shape), data = new Float32Array(count * each);
  const picked = Array.from({ length: count }, (_, i) => Math.floor(i * set.count / count));
  for (const [i, index] of picked.entries()) await set.read(index, data, i * each);
  const images: Samples = { count, shape, data };
  return { images, labels: labels && picked.map((index) => labels[index]) };
}

function describe(
  { model, count }: { model: string; count: number },
  data: Dataset,
  bound: Bound | undefined,
  density: Density | undefined,
): string {
  const row = (name: string, value: string) => `${name.padEnd(24)}${value}`;
  const lines = [
    row("model", model),
    row("data", `${data.name}, ${count} of ${data.count} images`),
  ];
  if (bound) {
    lines.push(row("variational bound", formatMean(bound)));
    const { terms } = bound, width = Math.ceil((terms.length - 1) / ROWS);
    lines.push(row("  prior", bound.prior.toFixed(6)));
    for (let last = terms.length - 1; last > 0; last -= width) {
      const first = Math.max(1, last - width + 1);
      const sum = terms.slice(first, last + 1).reduce((a, b) => a + b);
      lines.push(row(`  t = ${first === last ? last : `${last} to ${first}`}`, sum.toFixed(6)));
    }
    lines.push(row("  t = 0 (decoder)", terms[0].toFixed(6)));
  }
  if (density) lines.push(row("probability-flow ODE", formatMean(density)));
  return lines.join("\n");
}

/** "1.2345 bits/dim ± 0.0123", with the standard error of the mean. */
function formatMean({ total, images }: { total: number; images: readonly number[] }): string {
  const squares = images.reduce((sum, x) => sum + (x - total) ** 2, 0);
  const error = Math.sqrt(squares / (images.length - 1) / images.length);
  return `${total.toFixed(4)} bits/dim` + (images.length > 1 ? ` ± ${error.toFixed(4)}` : "");
}
