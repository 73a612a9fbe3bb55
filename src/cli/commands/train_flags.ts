/**
 * What `train` understands.
 *
 * @module
 */

import type { LearningRateSchedule } from "../../train/config.ts";
import type { ObjectiveName } from "../../train/objective.ts";
import { HISTORY } from "../../train/step.ts";
import { deviceFlags, precisionFlag } from "../terminal/device.ts";
import type { Flag, Flags } from "../terminal/flags.ts";
import { imageFlags } from "./image_options.ts";
import { DEFAULT_STEPS, MAX_STEPS, presets } from "../run/run_config.ts";

/** Steps where nobody says how many: between lines of the log, between checkpoints. */
export const DEFAULTS = { logEvery: 50, saveEvery: 500 };

/** What `train` understands. */
export const trainFlags = {
  data: {
    kind: "text",
    value: "DATA",
    help: "mnist, fashion-mnist, cifar10, emoji, a folder of images, or a file: IDX, zip, tar, npz",
  },
  ...imageFlags,
  out: { kind: "text", value: "FOLDER", help: "where everything is written" },
  config: {
    kind: "text",
    value: "NAME|FILE",
    help: `${Object.keys(presets).join(", ")}, or JSON as in a run's config.json`,
  },
  steps: {
    kind: "integer",
    min: 1,
    max: MAX_STEPS,
    help: `steps in all; default ${DEFAULT_STEPS}`,
  },
  "batch-size": { kind: "integer", min: 1, max: 65536, help: "images a step; default 64" },
  "micro-batch": {
    kind: "integer",
    min: 1,
    max: 65536,
    help: "images at a time, to save memory; gradients of a step add up",
  },
  "learning-rate": {
    kind: "number",
    min: 0,
    max: 1,
    help: "default 0.001, with a network of --config 0.0002",
  },
  "learning-rate-schedule": {
    kind: "text",
    choices: ["constant", "cosine", "step"] satisfies LearningRateSchedule[],
    value: "NAME",
    help: "constant, cosine (to 0 at --steps), or step (to a tenth at each third of them)",
  },
  objective: {
    kind: "text",
    choices: ["mse", "l1", "huber", "vlb", "hybrid", "classifier"] satisfies ObjectiveName[],
    value: "NAME",
    help: "what is minimised: mse, l1, huber, vlb, hybrid, or classifier (of noised images, " +
      "for sample --classifier); default mse",
  },
  precision: precisionFlag,
  "label-dropout": {
    kind: "number",
    min: 0,
    max: 0.99,
    help: "learn the classes of the data, but show so many images without, for guidance",
  },
  "held-out": {
    kind: "number",
    min: 0,
    max: 0.5,
    help: "share of the images to measure the loss on instead of learning from them",
  },
  seed: {
    kind: "integer",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    help: "of weights, order and noise; default 0",
  },
  "log-every": {
    kind: "integer",
    min: 1,
    max: HISTORY,
    help: `steps between lines of the log; default ${DEFAULTS.logEvery}`,
  },
  "save-every": {
    kind: "integer",
    min: 1,
    max: MAX_STEPS,
    help: `steps between checkpoints and sample grids; default ${DEFAULTS.saveEvery}`,
  },
  keep: { kind: "integer", min: 1, max: 1000, help: "checkpoints that are kept; default 2" },
  half: { kind: "switch", help: "write the model in 16-bit floats, half the size" },
  profile: {
    kind: "integer",
    min: 1,
    max: 1000,
    help: "only tell where the time of a step goes, from as many steps; writes nothing",
  },
  resume: { kind: "switch", help: "go on where the training in FOLDER stopped" },
  "print-config": { kind: "switch", help: "print the configuration, and train nothing" },
  "print-schema": { kind: "switch", help: "print the JSON schema of configurations" },
  ...deviceFlags,
  wide: {
    kind: "switch",
    help: "on the CPU, restart with flags for V8: up to twice as fast, without bounds checks",
  },
} as const satisfies Record<string, Flag>;

/** The flags that were given. */
export type TrainFlags = Flags<typeof trainFlags>;
