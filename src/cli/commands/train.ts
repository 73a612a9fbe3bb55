/**
 * `ddpm train`: trains a model on images.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Device } from "../../gpu/device.ts";
import type { Weighted } from "../../model/weights.ts";
import { createTrainer } from "../run/fit.ts";
import { openTrainingData, type ReadOptions } from "../data/data.ts";
import { checkDeviceFlags, openForCommand } from "../terminal/device.ts";
import { STREAM } from "../terminal/files.ts";
import { parseFlags } from "../terminal/flags.ts";
import { type ImageOptions, parseImages } from "../../data/image_options.ts";
import { knownData } from "../data/builtin_datasets.ts";
import { residentBytes } from "../run/memory.ts";
import { profileTraining } from "../run/profile.ts";
import { latentShape, type LatentSource, prepareLatents } from "../run/latents.ts";
import { openAutoencoder } from "../run/open_autoencoder.ts";
import { openTextEncoder } from "../run/open_text_encoder.ts";
import { print, Progress } from "../terminal/progress.ts";
import { formatRunConfig, type RunFields } from "../../train/run_config.ts";
import { configSchema } from "../run/run_config.ts";
import { RunFolder } from "../run/run_folder.ts";
import { openSavedTraining } from "../run/saved_training.ts";
import {
  askedFor,
  assembleConfig,
  checkUnchanged,
  overlay,
  planConfig,
} from "../run/train_config.ts";
import { DEFAULTS, type TrainFlags, trainFlags } from "./train_flags.ts";
import { initialModel } from "../../train/initial_model.ts";
import { announce, runTraining } from "../run/train_loop.ts";

/** Runs the command. */
export async function trainCommand(args: readonly string[]): Promise<number> {
  const { flags, rest } = parseFlags(args, trainFlags);
  if (rest.length) throw new InputError(`train takes flags only, not ${rest[0]}`);
  if (flags["print-schema"]) {
    print(JSON.stringify(configSchema(), null, 2));
    return 0;
  }
  const given = await askedFor(flags);
  // A training that goes on has what it started with, and more.
  const textEncoder = flags.resume || given.text_encoder === undefined
    ? undefined
    : await openTextEncoder(given.text_encoder);
  if (flags["print-config"] && !flags.resume) {
    print(JSON.stringify(planConfig(given, flags, textEncoder?.network), null, 2));
    return 0;
  }
  if (!flags.out && !flags.profile) throw new InputError("train needs --out FOLDER");
  if (flags.out === STREAM) {
    throw new InputError(
      "train writes a folder of files, not to standard output: give --out a name",
    );
  }
  checkDeviceFlags(flags);
  if (flags.profile) return await profile(flags, flags.profile, given, textEncoder);
  using folder = new RunFolder(flags.out!, {
    dtype: flags.half ? "F16" : "F32",
    ...(flags.keep === undefined ? {} : { keep: flags.keep }),
  });
  // A training of a page is data and state in one.
  using begun = flags.resume && given.data !== undefined && !await folder.holdsTraining()
    ? await openSavedTraining(given.data)
    : undefined;
  const recorded = flags.resume
    ? formatRunConfig(begun?.config ?? await folder.readConfig())
    : undefined;
  const place = given.data ?? recorded?.data;
  if (place === undefined) throw needsData();
  if (!recorded || begun) await folder.checkNew();
  if (recorded && flags["print-config"]) {
    print(JSON.stringify(recorded, null, 2));
    return 0;
  }
  using progress = new Progress();
  const fields = overlay(recorded, given);
  const images = parseImages((recorded ?? fields).images ?? {});
  const { fingerprint, source, items, ...found } = await openItems(
    ...[place, fields.latent, images, flags, progress] as const,
  );
  const wanted = assembleConfig(fields, flags, place, items, textEncoder?.network);
  const config = recorded ? assembleConfig(recorded, {}, place, items) : wanted;
  if (recorded) {
    checkUnchanged(config, wanted, folder);
    if (!begun) await folder.lock();
  }
  const plan = {
    last: wanted.steps,
    logEvery: flags["log-every"] ?? DEFAULTS.logEvery,
    saveEvery: flags["save-every"] ?? DEFAULTS.saveEvery,
  };
  const open = (kind?: Device["kind"]) =>
    openForCommand(kind ? { ...flags, device: kind } : flags, progress);
  const latents = source &&
    await prepareLatents(source, recorded && folder.path, () => open(), progress);
  const data = latents?.data ?? found.data;
  const command = ["ddpm train", ...args.map(quote)].join(" ");
  return await runTraining({
    ...{
      isNew: !recorded || begun !== undefined,
      begun: begun?.state,
      config,
      data,
      latents,
      textEncoder,
      fingerprint,
      folder,
      plan,
      progress,
      command,
      open,
    },
  });
}

/** Images, what latents are made of if they are to be, and the items as the network is shown them. */
async function openItems(
  place: string,
  latent: string | undefined,
  images: ImageOptions,
  flags: TrainFlags,
  progress: Progress,
) {
  const found = await openTrainingData(place, images, progress, readOptions(flags));
  const source: LatentSource | undefined = latent === undefined
    ? undefined
    : { place: latent, autoencoder: await openAutoencoder(latent), ...found, images };
  const items = source ? { ...found.data, shape: latentShape(source) } : found.data;
  return { ...found, source, items };
}

/** Quotes an argument for a shell. */
const quote = (text: string) =>
  /^[\w./:=,+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/** Profiles some steps of a new training. */
async function profile(
  flags: TrainFlags,
  steps: number,
  asked: RunFields,
  textEncoder: Weighted | undefined,
): Promise<number> {
  const superfluous = (["out", "resume", "steps"] as const).find((name) => flags[name]);
  if (superfluous) throw new InputError(`--profile writes nothing: leave out --${superfluous}`);
  const place = asked.data;
  if (place === undefined) throw needsData();
  using progress = new Progress();
  const images = parseImages(asked.images ?? {});
  const { source, items, ...found } = await openItems(
    ...[place, asked.latent, images, flags, progress] as const,
  );
  const config = assembleConfig(asked, flags, place, items, textEncoder?.network);
  const open = () => openForCommand(flags, progress);
  const { data } = source ? await prepareLatents(source, undefined, open, progress) : found;
  using device = await open();
  const base = residentBytes();
  progress.update(`compiling for ${device.name}`);
  using trainer = await createTrainer(
    device,
    initialModel(config, data, { textEncoder }),
    data,
    config.training,
  );
  announce({ trainer, data, device, progress }, base);
  print(await profileTraining(trainer, device, steps, progress));
  return 0;
}

const needsData = () =>
  new InputError(`train needs --data: ${Object.keys(knownData).join(", ")}, or a folder`);

/** How the data are read; this does not affect the result. */
const readOptions = (flags: TrainFlags): ReadOptions => ({
  ...(flags.cache ? { cache: true } : {}),
  ...(flags["max-bad"] === undefined ? {} : { maxBad: flags["max-bad"] }),
});
