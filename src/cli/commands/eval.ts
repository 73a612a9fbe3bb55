/**
 * `ddpm eval`: what the pictures of a model are worth, and how likely images are under it.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { heldBack, openDataset } from "../data/data.ts";
import {
  BITS_COUNT,
  BITS_STEPS,
  checkBits,
  describeBits,
  measureBits,
} from "../evaluation/bits.ts";
import { featureNames } from "../evaluation/features.ts";
import { METRICS, readMetrics } from "../evaluation/measures.ts";
import { SPACES } from "../evaluation/neighbors.ts";
import { splitOf, SPLITS } from "../evaluation/reference.ts";
import { USUAL_COUNT } from "../evaluation/subject.ts";
import { INTERRUPTED, Interruption } from "../run/interruption.ts";
import { openAnyModel } from "../run/open_model.ts";
import { checkDeviceFlags, deviceFlags, openForCommand } from "../terminal/device.ts";
import { type Flag, type Flags, parseFlags } from "../terminal/flags.ts";
import { print, Progress } from "../terminal/progress.ts";
import { parseImages } from "../../data/image_options.ts";
import { classFlags } from "./class_flags.ts";
import { evaluatePictures } from "./eval_pictures.ts";
import { guidanceFlags } from "./guidance_flags.ts";
import { promptFlags } from "./prompt_flags.ts";
import { listMethods, samplerFlags } from "./sampler_flags.ts";

/** The flags of `eval`. */
export const evalFlags = {
  metric: {
    kind: "text",
    value: "NAME,...",
    default: "bpd; fd with --samples",
    help:
      `what to measure: fd (Fréchet distance), kid (kernel distance), prdc (precision, recall, ` +
      `density, coverage), is (score of classes), class (what a classifier sees), nn (nearest ` +
      `training images), retrieval (captions found again), bpd (bits per dimension)`,
  },
  model: {
    kind: "text",
    value: "MODEL",
    default: "mnist",
    help: "as for sample",
  },
  samples: {
    kind: "text",
    value: "PATH,...",
    help:
      "pictures of anything else, as for --data, instead of a model's; or statistics that --out wrote of parts",
  },
  data: {
    kind: "text",
    value: "DATA",
    help:
      "real images, as for train; for bpd the test split where there is one (t10k-* of IDX folders)",
  },
  split: {
    kind: "text",
    choices: SPLITS,
    value: "NAME",
    default: "train",
    help: "which images of --data, train or test; for bpd alone test if there is one",
  },
  reference: {
    kind: "text",
    value: "FILE.npz",
    help: "statistics of real images (mu, sigma) instead of --data",
  },
  features: {
    kind: "text",
    value: "NAME|MODEL",
    default: "those of --data, or mnist",
    help: `features to compare: ${
      featureNames.join(", ")
    } (Inception v3, for the FID as pytorch-fid or as torch-fidelity takes it), or a model made by train --config features or dual-encoder`,
  },
  weights: {
    kind: "text",
    value: "FILE",
    help: "the weights of --features inception, as .pth or .safetensors",
  },
  count: {
    kind: "integer",
    min: 1,
    max: 10_000_000,
    default: `${USUAL_COUNT} of a model, all of others; ${BITS_COUNT} for bpd`,
    help: "number of images, from --first on; for bpd spread evenly over the data",
  },
  first: {
    kind: "integer",
    min: 0,
    max: 10_000_000,
    default: 0,
    help: "number of the first image, so that several processes may share the work",
  },
  neighbors: {
    kind: "text",
    choices: SPACES,
    value: "WHERE",
    default: "features",
    help: "what nn is near in, features or pixels",
  },
  by: {
    kind: "text",
    choices: ["vlb", "ode", "both"],
    value: "HOW",
    default: "both",
    help:
      "bpd by vlb (the variational bound), ode (the exact likelihood of the probability-flow ODE), or both",
  },
  ...samplerFlags,
  steps: {
    ...samplerFlags.steps,
    default: `as for sample; ${BITS_STEPS} for bpd alone`,
    help: "sampling steps; for bpd alone ODE steps, of four evaluations each",
  },
  ...classFlags,
  ...promptFlags,
  prompts: {
    ...promptFlags.prompts,
    default: "the captions of --data, for models that read",
  },
  ...guidanceFlags,
  seed: {
    kind: "integer",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    default: 0,
    help: "random seed",
  },
  batch: {
    kind: "integer",
    min: 1,
    max: 65536,
    default: 64,
    help: "images that are sampled together",
  },
  out: {
    kind: "text",
    value: "FILE.npz",
    help:
      "write statistics of the samples: mu, sigma, and features where --metric needs them; without --model, --samples and --metric those of --data",
  },
  report: { kind: "text", value: "FILE.html", help: "write a page with pictures and histograms" },
  json: { kind: "switch", help: "print JSON; for bpd with every timestep and every image" },
  ...deviceFlags,
} as const satisfies Record<string, Flag>;

/** Those of `eval`. */
export type EvalFlags = Flags<typeof evalFlags>;

/** Runs the command. */
export async function evalCommand(args: readonly string[]): Promise<number> {
  const { flags, rest } = parseFlags(args, evalFlags);
  if (rest.length) throw new InputError(`eval takes flags only, not ${rest[0]}`);
  if (flags.sampler === "list") {
    print(listMethods());
    return 0;
  }
  checkDeviceFlags(flags);
  const usual = flags.samples !== undefined ? "fd" : flags.out === undefined ? "bpd" : undefined;
  const asked = flags.metric ?? usual, metrics = asked === undefined ? [] : readMetrics(asked);
  using progress = new Progress();
  using interruption = new Interruption(progress, "stopping");
  const { signal } = interruption;
  const isBits = metrics.join() === "bpd" && flags.samples === undefined;
  try {
    await (isBits
      ? evaluateBits(flags, progress, signal)
      : evaluatePictures(flags, metrics, progress, signal));
    return 0;
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error;
    return INTERRUPTED;
  }
}

/** What bits per dimension have nothing to do with. */
const IDLE = [
  ...["reference", "features", "weights", "first", "neighbors", "batch", "out", "report"],
  ...Object.keys({ ...samplerFlags, ...classFlags, ...promptFlags, ...guidanceFlags })
    .filter((name) => name !== "steps"),
] as (keyof EvalFlags)[];

/** Likelihoods alone. */
async function evaluateBits(
  flags: EvalFlags,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  const { model: place = "mnist", seed = 0, by = "both", split } = flags;
  const idle = IDLE.find((name) => flags[name] !== undefined);
  if (idle) {
    const others = METRICS.filter((name) => name !== "bpd").join(", ");
    throw new InputError(`--${idle} is not for bpd: it goes with --metric ${others}`);
  }
  if (flags.data === undefined) {
    throw new InputError("eval needs --data: mnist, a folder or a file");
  }
  if (by === "vlb" && flags.steps !== undefined) {
    throw new InputError("--steps is for the ODE: the bound takes every timestep");
  }
  const model = await openAnyModel(place);
  checkBits(model, place);
  const [height, width, channels] = model.network.itemShape;
  const from = split === undefined
    ? await heldBack(flags.data) ?? flags.data
    : await splitOf(flags.data, split);
  const size = height && width ? [height, width] : null;
  const data = await openDataset(from, parseImages({ channels, size }), progress);
  if (flags.count !== undefined && flags.count > data.count) {
    throw new InputError(`--count is ${flags.count}, but ${from} has ${data.count} images`);
  }
  const count = flags.count ?? Math.min(BITS_COUNT, data.count);
  using device = await openForCommand(flags, progress);
  const options = { by, count, seed, signal, steps: flags.steps ?? BITS_STEPS };
  const bits = await measureBits(device, model, data, options, progress);
  const facts = { metric: "bpd", model: place, data: from, seed, ...bits };
  print(flags.json ? JSON.stringify(facts) : describeBits(bits, place, data));
}
