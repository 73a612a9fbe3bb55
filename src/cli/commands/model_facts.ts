/**
 * Where a model is from, what its files are, and what its card allows, for `ddpm info`.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { CHUNK } from "../../formats/bytes.ts";
import { readTensorFile } from "../../formats/torch.ts";
import type { DualEncoderModel, Model } from "../../model/model.ts";
import { formatBytes } from "../../units.ts";
import type { ItemShape } from "../../model/network.ts";
import { paintedShape } from "../../sample/latent_sampler.ts";
import type { FoundAutoencoder } from "../run/found_autoencoder.ts";
import type { Located } from "../run/load_model.ts";
import {
  AVERAGE,
  type ModelFolder,
  readParts,
  type UnsupportedPipeline,
} from "../run/model_folder.ts";
import { findWeights } from "../run/piece_weights.ts";
import { lackOf, nameOf } from "../run/pipeline.ts";
import type { LoadedTextToImage } from "../run/text_to_image.ts";
import { FileBytes, readFile } from "../terminal/files.ts";

/** Facts by name. */
export type Facts = Record<string, unknown>;

/** What a model is, in a few lines. */
export function summarize({ network, schedule, card, autoencoder }: Model): Facts {
  const { itemShape } = network, isWhole = itemShape.every((n) => n !== null);
  const shapeOf = (shape: ItemShape) => {
    const [height, width] = shape.map((size) => size ?? "any");
    return `${width}x${height}, ${shape.at(-1)} channels`;
  };
  const { numTrainTimesteps, betaSchedule, trainedBetas, predictionType } = schedule;
  return {
    network: network.className,
    parameters: network.layout.count,
    ...(itemShape.length === 3 && !autoencoder ? { image: shapeOf(itemShape) } : {}),
    ...(autoencoder && isWhole
      ? {
        image: shapeOf(paintedShape({ autoencoder }, itemShape)),
        latents: shapeOf(itemShape),
        autoencoder: `${autoencoder.network.className}, ` +
          `${autoencoder.network.layout.count} parameters, scale ${autoencoder.network.scalingFactor}`,
      }
      : {}),
    schedule: `${numTrainTimesteps} timesteps, ${trainedBetas ? "betas of its own" : betaSchedule}`,
    ...(network.kind === "denoiser" ? { prediction: predictionType } : {}),
    ...("family" in card ? { family: card.family } : {}),
  };
}

/** Whether weights are a moving average, as far as their card tells. */
function averageIn({ weight_source: source, training }: Model["card"]): string | undefined {
  // A training of this program saves nothing else.
  return source ?? (training === undefined ? undefined : "yes");
}

/** Facts about the files of a model that was found, and that has this card. */
export async function describeFiles(
  located: Located,
  isState: boolean,
  card: Model["card"],
): Promise<Facts> {
  if (located.kind === "shipped") return { family: "ddpm", "moving average": "yes" };
  if (located.kind === "file") {
    const average = isState ? "yes, of a state" : averageIn(card) ?? "not told";
    return {
      ...{ family: "ddpm", "moving average": average },
      ...await describeWeights([located.path]),
      ...await describeCard(located.folder),
    };
  }
  const { folder, file } = located, parts = await readParts(folder, file);
  const { pipeline, where, weights: { variant } } = parts;
  const average = where === AVERAGE || variant === "ema"
    ? "yes"
    : variant === "non_ema"
    ? "no"
    : averageIn(card) ?? "not told; pipelines have it if their training made one";
  return {
    family: "diffusers",
    ...(pipeline ? { pipeline: pipeline.className } : {}),
    "moving average": average,
    ...(variant ? { variant } : {}),
    ...await describeWeights([...(await findWeights(folder, parts)).values()]),
    ...await describeCard(folder),
  };
}

/** Facts about a pipeline that cannot be run. */
export async function describePipeline(
  { pipeline: { className, network, missing, text }, pieces }: UnsupportedPipeline,
  located: Located,
): Promise<Facts> {
  return {
    ...(located.kind === "file"
      ? { family: className }
      : { family: "diffusers", pipeline: className }),
    ...(Object.keys(pieces).length
      ? pieces
      : { network: network ? nameOf(network) : "none that is known" }),
    ...(located.kind === "shipped" ? {} : await describeCard(located.folder)),
    missing: [...missing, ...lackOf(text)].join(", ") || "a network",
  };
}

/** Facts about what paints texts. */
export async function describeTextToImage(
  { model: { denoiser, autoencoder, textEncoder, tokenizer, safetyChecker }, ...files }:
    LoadedTextToImage,
  located: Located,
): Promise<Facts> {
  const { factor, latentChannels, itemShape } = autoencoder.network;
  const { image: _, network: _network, parameters: _count, ...noise } = summarize(denoiser);
  const [height, width] = denoiser.network.itemShape.map((size) => size && size * factor);
  const all = [denoiser, autoencoder, textEncoder, ...(safetyChecker ? [safetyChecker] : [])];
  const parameters = all.reduce((n, { network }) => n + network.layout.count, 0);
  return {
    family: files.family,
    ...(files.pipeline ? { pipeline: files.pipeline } : {}),
    ...files.pieces,
    tokenizer: `${tokenizer.vocabulary} tokens, ${tokenizer.length} a text`,
    image: `${width && height ? `${width}x${height}` : "any size in multiples of " + factor}, ` +
      `${itemShape.at(-1)} channels`,
    latents: `${factor} times smaller, ${latentChannels} channels, times ` +
      autoencoder.network.scalingFactor,
    ...noise,
    ...denoiser.card,
    ...await describeWeights(files.paths),
    ...(located.kind === "shipped" ? {} : await describeCard(located.folder)),
    missing: "nothing",
    ...{ parameters, weights: formatBytes(4 * parameters) },
  };
}

/** Facts about an autoencoder. */
export async function describeAutoencoder(
  { autoencoder: { network, card }, family }: FoundAutoencoder,
  located: Located,
): Promise<Facts> {
  const { factor, latentChannels, itemShape, layout } = network;
  return {
    "moving average": "not told",
    ...await describeFiles(located, false, card),
    family,
    ...{ network: network.className, kind: network.kind, parameters: layout.count },
    image: `any size in multiples of ${factor}, ${itemShape.at(-1)} channels`,
    latents: `${factor} times smaller, ${latentChannels} channels`,
    weights: formatBytes(4 * layout.count),
    ...network.config,
    ...card,
  };
}

/** Facts about a dual encoder. */
export async function describeDualEncoder(
  { network, card }: DualEncoderModel,
  located: Located,
): Promise<Facts> {
  const { kind, layout, width, tokens, itemShape } = network,
    [height, across, channels] = itemShape;
  return {
    ...await describeFiles(located, false, card),
    ...{ network: network.className, kind, parameters: layout.count },
    image: `${across}x${height}, ${channels} channels`,
    text: formatBytes(tokens.shape[0]),
    embedding: `${width} numbers`,
    weights: formatBytes(4 * layout.count),
    ...network.config,
    ...card,
  };
}

/** The types of the weights, and the checksums of their files. */
async function describeWeights(paths: readonly string[]): Promise<Facts> {
  const dtypes = new Set<string>(), sums: string[] = [];
  for (const path of paths) {
    using file = new FileBytes(path);
    for (const { dtype } of (await readTensorFile(file, path)).tensors.values()) dtypes.add(dtype);
    const hash = createHash("sha256");
    for (let at = 0; at < file.length; at += 16 * CHUNK) {
      hash.update(file.read(at, at + 16 * CHUNK));
    }
    sums.push(hash.digest("hex"));
  }
  return { dtype: [...dtypes].sort().join(", "), sha256: sums.length === 1 ? sums[0] : sums };
}

/** The licence that the card of a model names, in its own folder or the one above. */
async function describeCard(folder: ModelFolder): Promise<Facts> {
  for (const path of ["README.md", "../README.md"]) {
    const card = await folder.find(path);
    const license = card && licenseOf(new TextDecoder().decode(await readFile(card)));
    if (license) return { license };
  }
  return {};
}

/** What the YAML at the beginning of a card says of a licence. */
export function licenseOf(card: string): string | undefined {
  const front = /^---\r?\n(.*?)^---\s*$/ms.exec(card)?.[1];
  const field = (name: string) => {
    const found = new RegExp(`^${name}:[ \\t]*(.*(?:\\r?\\n[ \\t]*- .*)*)`, "m").exec(front ?? "")
      ?.[1];
    const words = found?.split(/\r?\n/).map((line) => line.trim().replace(/^- */, ""))
      .map((line) => line.replace(/^["'](.*)["']$/, "$1")).filter((line) => line !== "");
    return words?.join(", ") || undefined;
  };
  const license = field("license");
  // Those without an abbreviation have a name of their own.
  return license === "other" ? field("license_name") ?? field("license_link") ?? license : license;
}
