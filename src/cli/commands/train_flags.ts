/**
 * The flags of `train`.
 *
 * @module
 */

import type { LearningRateSchedule } from "../../train/config.ts";
import type { ObjectiveName } from "../../train/objective.ts";
import { HISTORY } from "../../train/step.ts";
import { deviceFlags, precisionFlag } from "../terminal/device.ts";
import type { Flag, Flags } from "../terminal/flags.ts";
import { imageFlags } from "./image_options.ts";
import { DEFAULT_TRAINING_STEPS, MAX_STEPS } from "../../train/run_config.ts";
import { presets } from "../run/run_config.ts";

/** Default intervals in steps: of log lines and of checkpoints. */
export const DEFAULTS = { logEvery: 50, saveEvery: 500 };

/** The flags of `train`. */
export const trainFlags = {
  data: {
    kind: "text",
    value: "DATA",
    help:
      "mnist, fashion-mnist, cifar10, emoji, a folder of images, or a file: zip, tar, npy, npz, safetensors, IDX",
  },
  ...imageFlags,
  latent: {
    kind: "text",
    value: "MODEL",
    help:
      "train on the latents of an autoencoder: one of train --objective autoencoder, a vae folder of diffusers, or a file of latent diffusion",
  },
  "text-encoder": {
    kind: "text",
    value: "MODEL",
    help:
      "with captions: start with the text encoder of a dual encoder (train --objective contrastive), or of " +
      "another model of captions",
  },
  out: {
    kind: "text",
    value: "FOLDER",
    help: "folder for the model, checkpoints, samples, log and report",
  },
  config: {
    kind: "text",
    value: "NAME|FILE",
    default: "mnist",
    help: `a preset (${
      Object.keys(presets).join(", ")
    }), or a JSON file like the config.json of a training`,
  },
  factor: {
    kind: "integer",
    min: 2,
    max: 16,
    default: 2,
    help: "scale factor of --objective super-resolution",
  },
  steps: {
    kind: "integer",
    min: 1,
    max: MAX_STEPS,
    default: DEFAULT_TRAINING_STEPS,
    help: "training steps in total",
  },
  "batch-size": { kind: "integer", min: 1, max: 65536, default: 64, help: "images per step" },
  "micro-batch": {
    kind: "integer",
    min: 1,
    max: 65536,
    help: "images computed at a time, to save memory; gradients accumulate over the batch",
  },
  "learning-rate": {
    kind: "number",
    min: 0,
    max: 1,
    default: "0.001; 0.0002 with the network of a --config",
    help: "peak learning rate",
  },
  "learning-rate-schedule": {
    kind: "text",
    choices: ["constant", "cosine", "step"] satisfies LearningRateSchedule[],
    value: "NAME",
    default: "constant",
    help: "constant, cosine (to 0 at --steps), or step (divided by 10 after each third of --steps)",
  },
  objective: {
    kind: "text",
    choices: [
      ...([
        "mse",
        "l1",
        "huber",
        "vlb",
        "hybrid",
        "classifier",
        "autoencoder",
        "contrastive",
      ] satisfies ObjectiveName[]),
      "super-resolution",
    ],
    value: "NAME",
    default: "mse",
    help:
      "the loss: mse, l1, huber, vlb or hybrid; classifier trains a classifier of noised images " +
      "for sample --classifier, super-resolution a model for upscale and cascades, autoencoder one " +
      "between pictures and latents for --latent, contrastive a dual encoder of pictures and " +
      "captions for eval --features",
  },
  precision: precisionFlag,
  "label-dropout": {
    kind: "number",
    min: 0,
    max: 0.99,
    help:
      "train on class labels, dropped with this probability, as classifier-free guidance needs it",
  },
  "held-out": {
    kind: "number",
    min: 0,
    max: 0.5,
    default: 0,
    help: "fraction of the images to hold out for the validation loss",
  },
  seed: {
    kind: "integer",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    default: 0,
    help: "random seed of weights, order and noise",
  },
  "log-every": {
    kind: "integer",
    min: 1,
    max: HISTORY,
    default: DEFAULTS.logEvery,
    help: "steps between lines of the log",
  },
  "save-every": {
    kind: "integer",
    min: 1,
    max: MAX_STEPS,
    default: DEFAULTS.saveEvery,
    help: "steps between checkpoints and sample grids",
  },
  keep: { kind: "integer", min: 1, max: 1000, default: 2, help: "checkpoints to keep" },
  half: { kind: "switch", help: "save the model as 16-bit floats: half the size" },
  profile: {
    kind: "integer",
    min: 1,
    max: 1000,
    help: "time N steps kernel by kernel, print where the time goes, and write nothing",
  },
  resume: {
    kind: "switch",
    help: "continue the training in --out, or one that a page saved, in --data",
  },
  "print-config": { kind: "switch", help: "print the resulting configuration and exit" },
  "print-schema": { kind: "switch", help: "print the JSON schema of configuration files and exit" },
  ...deviceFlags,
} as const satisfies Record<string, Flag>;

/** The flags that were given. */
export type TrainFlags = Flags<typeof trainFlags>;
